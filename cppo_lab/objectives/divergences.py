"""Divergences D_t between the anchor policy p (mu) and the current policy q (pi) at one position.

Binary: DPPO (arXiv 2602.04879). Top-K reduced: the same, section on Top-K. k2, k3: TRM (arXiv 2512.23075).
By data processing binary <= top-K (union) <= exact, for TV and for KL. All are detached and non-negative.
"""

import torch
from torch import Tensor

from cppo_lab.objectives.batch import FullDistributions, TopK
from cppo_lab.objectives.coordinates import DivergenceKind, DivergenceSpec
from cppo_lab.objectives.log_ratios import log_ratio, read_logp

MAX_PROBABILITY = 1 - 1e-7
"""Probabilities are kept below 1 by the resolution of float32 before log(1 - p)."""
MIN_REST = 1e-12
"""Least mass of the atom that gathers the tokens outside the top K."""


@torch.no_grad()
def divergence(
    kind: DivergenceKind,
    spec: DivergenceSpec,
    logp: Tensor,
    anchor_logp: Tensor,
    mask: Tensor,
    topk: TopK | None = None,
    full: FullDistributions | None = None,
) -> Tensor | None:
    """D_t [B, T], 0 outside the mask; None for kind none.

    `logp` and `anchor_logp` [B, T] have been read with `read_logp`. Raises ValueError when the tensors that
    `kind` needs are missing.
    """
    if kind == "none":
        return None
    if kind.startswith("topk"):
        if topk is None:
            raise ValueError(f"divergence.kind {kind} needs the top-K log-probabilities, TokenBatch.topk")
        pair = topk_atoms(topk, logp, anchor_logp, mask, replace_last=spec.atoms == "replace")
    elif kind.startswith("exact"):
        if full is None:
            raise ValueError(f"divergence.kind {kind} needs the full distributions, TokenBatch.full")
        pair = read_logp(full.rollout_logp, mask), read_logp(full.policy_logp, mask)
    else:
        pair = anchor_logp, logp
    if spec.direction == "reverse":
        pair = pair[1], pair[0]
    values = _RULES[kind](*pair)
    return values.clamp(min=0).masked_fill(~mask, 0.0)


def binary_tv(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """|p(a) - q(a)| for the sampled token a; [B, T]."""
    return (p_logp.exp() - q_logp.exp()).abs()


def binary_kl(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """KL between the two Bernoulli distributions "a, or any other token"; [B, T]."""
    p, q = p_logp.exp().clamp(max=MAX_PROBABILITY), q_logp.exp().clamp(max=MAX_PROBABILITY)
    rest = torch.log1p(-p) - torch.log1p(-q)
    return p * (p_logp - q_logp) + (1 - p) * rest


def total_variation(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """Half the L1 distance over the last dimension; [B, T, N] -> [B, T]."""
    return 0.5 * (p_logp.exp() - q_logp.exp()).abs().sum(-1)


def kullback_leibler(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """KL(p || q) over the last dimension; [B, T, N] -> [B, T]."""
    return (p_logp.exp() * (p_logp - q_logp)).sum(-1)


def k2(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """Half the squared log-ratio of the sampled token, the same in both directions; [B, T]."""
    return 0.5 * log_ratio(q_logp, p_logp)[0].square()


def k3(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """rho - 1 - log rho with rho = q/p: unbiased for KL(p || q) under samples of p; [B, T]."""
    log_rho = log_ratio(q_logp, p_logp)[0]
    return torch.expm1(log_rho) - log_rho


def topk_atoms(
    topk: TopK, logp: Tensor, anchor_logp: Tensor, mask: Tensor, *, replace_last: bool
) -> tuple[Tensor, Tensor]:
    """log p and log q over the reduced atoms [B, T, K + 2]: top K, sampled token if outside, and the rest.

    Slots not in use have probability 0 in both. With `replace_last` a sampled token from outside takes the
    place of the least likely of the K, whose mass falls to the rest.
    """
    outside = ~topk.contains_sampled
    atoms = []
    for listed, sampled in ((topk.rollout_logp, anchor_logp), (topk.policy_logp, logp)):
        listed_logp = read_logp(listed, mask)
        if replace_last:
            last = topk.rollout_logp.argmin(-1, keepdim=True)
            removed = torch.zeros_like(listed_logp, dtype=torch.bool).scatter(-1, last, outside.unsqueeze(-1))
            listed_logp = listed_logp.masked_fill(removed, -torch.inf)
        extra = sampled.masked_fill(~outside, -torch.inf).unsqueeze(-1)
        named = torch.cat([listed_logp, extra], -1)
        rest = (1 - named.exp().sum(-1, keepdim=True)).clamp(min=MIN_REST).log()
        atoms.append(torch.cat([named, rest], -1))
    p_logp, q_logp = (read_logp(values, mask) for values in atoms)
    return p_logp, q_logp


_RULES = {
    "binary_tv": binary_tv,
    "binary_kl": binary_kl,
    "topk_tv": total_variation,
    "topk_kl": kullback_leibler,
    "exact_tv": total_variation,
    "exact_kl": kullback_leibler,
    "k2": k2,
    "k3": k3,
}

"""Divergences D_t between the anchor policy p (mu) and the current policy q (pi) at one position.

Binary: DPPO (arXiv 2602.04879). Top-K reduced: the same, section on Top-K. k2, k3: TRM (arXiv 2512.23075).
By data processing binary <= top-K (union) <= exact, for TV and for KL. All are detached and non-negative.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cppo_lab.objectives.batch import ZERO_LOGP, FullDistributions, TopK
from cppo_lab.objectives.coordinates import DivergenceKind, DivergenceSpec
from cppo_lab.objectives.log_ratios import log_ratio

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
    sampled = (anchor_logp, logp)
    if spec.direction == "reverse":
        sampled = sampled[::-1]
    if kind.startswith("topk"):
        if topk is None:
            raise ValueError(f"divergence.kind {kind} needs the top-K log-probabilities, TokenBatch.topk")
        values = _topk(_TERMS[kind.removeprefix("topk_")], spec, topk, sampled)
    elif kind.startswith("exact"):
        if full is None:
            raise ValueError(f"divergence.kind {kind} needs the full distributions, TokenBatch.full")
        p_logp, q_logp = _directed(full.rollout_logp, full.policy_logp, spec)
        values = _TERMS[kind.removeprefix("exact_")](p_logp.exp(), q_logp.exp(), p_logp, q_logp).sum(-1)
    else:
        values = _SAMPLED[kind](*sampled)
    return values.to(logp.dtype).clamp(min=0).masked_fill(~mask, 0.0)


def binary_tv(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """|p(a) - q(a)| for the sampled token a; [B, T]."""
    return (p_logp.exp() - q_logp.exp()).abs()


def binary_kl(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """KL between the two Bernoulli distributions "a, or any other token"; [B, T]."""
    p, q = p_logp.exp().clamp(max=MAX_PROBABILITY), q_logp.exp().clamp(max=MAX_PROBABILITY)
    rest = torch.log1p(-p) - torch.log1p(-q)
    return p * (p_logp - q_logp) + (1 - p) * rest


def tv_terms(p: Tensor, q: Tensor, p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """What each atom adds to the total variation distance; any shape."""
    return (p - q).abs_().mul_(0.5)


def kl_terms(p: Tensor, q: Tensor, p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """What each atom adds to KL(p || q); any shape."""
    return (p_logp - q_logp).mul_(p)


def k2(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """Half the squared log-ratio of the sampled token, the same in both directions; [B, T]."""
    return 0.5 * log_ratio(q_logp, p_logp)[0].square()


def k3(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """rho - 1 - log rho with rho = q/p: unbiased for KL(p || q) under samples of p; [B, T]."""
    log_rho = log_ratio(q_logp, p_logp)[0]
    return torch.expm1(log_rho) - log_rho


def _topk(
    terms: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    spec: DivergenceSpec,
    topk: TopK,
    sampled: tuple[Tensor, Tensor],
) -> Tensor:
    """Over the reduced atoms: the top K, the sampled token where it is not among them, and all others as one.

    Under atoms `replace` a sampled token from outside takes the place of the least likely of the K under mu,
    whose mass falls to the others. Positions outside the mask may give anything.
    """
    p_logp, q_logp = _directed(topk.rollout_logp, topk.policy_logp, spec)
    p, q = p_logp.exp(), q_logp.exp()
    value = terms(p, q, p_logp, q_logp).sum(-1)
    p_rest, q_rest = 1 - p.sum(-1), 1 - q.sum(-1)
    outside = ~topk.contains_sampled
    if spec.atoms == "replace":
        last = topk.rollout_logp.argmin(-1, keepdim=True)
        removed = [atoms.gather(-1, last).squeeze(-1) for atoms in (p, q, p_logp, q_logp)]
        value = value - terms(*removed) * outside
        p_rest, q_rest = p_rest + removed[0] * outside, q_rest + removed[1] * outside
    p_sampled, q_sampled = (values.exp() for values in sampled)
    value = value + terms(p_sampled, q_sampled, *sampled) * outside
    p_rest = (p_rest - p_sampled * outside).clamp(min=MIN_REST)
    q_rest = (q_rest - q_sampled * outside).clamp(min=MIN_REST)
    return value + terms(p_rest, q_rest, p_rest.log(), q_rest.log())


def _directed(rollout_logp: Tensor, policy_logp: Tensor, spec: DivergenceSpec) -> tuple[Tensor, Tensor]:
    """log p and log q in float32 at least, minus infinity read as ZERO_LOGP, in the direction asked for."""
    pair = []
    for values in (rollout_logp, policy_logp):
        wide = values.detach().to(torch.promote_types(values.dtype, torch.float32))
        pair.append(wide.clamp(min=ZERO_LOGP))
    return (pair[0], pair[1]) if spec.direction == "forward" else (pair[1], pair[0])


_TERMS = {"tv": tv_terms, "kl": kl_terms}
_SAMPLED = {"binary_tv": binary_tv, "binary_kl": binary_kl, "k2": k2, "k3": k3}

"""The predicted change of a divergence: its derivative along one policy-gradient step on the sampled token.

Such a step on token a moves the logits by A rho (1[i = a] - pi_i). The predicted change leaves out the factor A rho, so
that A times it has the sign of what the step does to D. It is first order, and knows nothing of the other tokens of
the batch.

For KL(mu || pi) it is e_a - sum_i pi_i e_i with e = pi - mu: how much more than on average the sampled token's
probability has grown. The published rule has this case with the uniform and the aggregated tail; TV, KL(pi || mu) and
the tail by second moment are the lab's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.divergences import MIN_REST, DivergenceInputs

Tail = Literal["uniform", "aggregated", "second_moment"]
Weights = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Atoms:
    """Probabilities at each position: of listed tokens [B, T, N], and of all others together, the tail [B, T]."""

    mu: Tensor
    pi: Tensor
    mu_tail: Tensor
    pi_tail: Tensor
    tail_mean: Tensor
    """The mean of pi over the tail under pi itself, sum of pi^2 over pi_tail."""


def kl_weights(mu: Tensor, pi: Tensor) -> Tensor:
    """pi times the slope of KL(mu || pi) in pi, per atom; any shape."""
    return -mu


def reverse_kl_weights(mu: Tensor, pi: Tensor) -> Tensor:
    """pi times the slope of KL(pi || mu) in pi, up to a multiple of pi."""
    least = torch.finfo(pi.dtype).tiny
    return pi * (pi.clamp(min=least).log() - mu.clamp(min=least).log())


def tv_weights(mu: Tensor, pi: Tensor) -> Tensor:
    """pi times the slope of TV in pi."""
    return 0.5 * (pi - mu).sign() * pi


WEIGHTS: dict[tuple[str, bool], Weights] = {
    (f"{reach}_{measure}", reverse): weights
    for reach in ("topk", "exact")
    for measure, reverse, weights in (
        ("kl", False, kl_weights),
        ("kl", True, reverse_kl_weights),
        ("tv", False, tv_weights),
        ("tv", True, tv_weights),
    )
}
"""By kind of divergence, and whether it is taken from pi to mu."""


def change(weights: Weights, atoms: Atoms, mu_sampled: Tensor, pi_sampled: Tensor) -> Tensor:
    """The predicted change [B, T], from the probabilities of the sampled token [B, T] and of all atoms.

    A step of size one changes pi_j by pi_j (1[j = a] - pi_j - pi_a + sum of pi^2).
    """
    of_listed, of_tail = weights(atoms.mu, atoms.pi), weights(atoms.mu_tail, atoms.pi_tail)
    collision = atoms.pi.square().sum(-1) + atoms.pi_tail * atoms.tail_mean
    falling = (of_listed * atoms.pi).sum(-1) + of_tail * atoms.tail_mean
    total = of_listed.sum(-1) + of_tail
    return weights(mu_sampled, pi_sampled) - falling + (collision - pi_sampled) * total


def whole_atoms(at: DivergenceInputs) -> Atoms:
    """The whole vocabulary, without a tail."""
    mu_logp, pi_logp = at.whole()
    nothing = torch.zeros_like(mu_logp[..., 0])
    return Atoms(mu_logp.exp(), pi_logp.exp(), nothing, nothing, nothing)


def reduced_atoms(
    at: DivergenceInputs, k: int, atoms: str, tail: Tail, vocabulary: int | None, collision: Tensor | None
) -> Atoms:
    """The atoms of the top-K divergences: the top K, the sampled token, and the tail.

    The sum of pi^2 over the tail is unknown. Taken as `aggregated` the tail is one token, as `uniform` equal ones,
    which bound it; `second_moment` has it from `collision` [B, T], the sum over the vocabulary. Raises ValueError
    where `uniform` lacks the size of the vocabulary, or `second_moment` lacks `collision`.
    """
    topk, mu_logp, pi_logp = at.top(k)
    empty = torch.isneginf(topk.rollout_logp) & torch.isneginf(topk.policy_logp)
    mu, pi = mu_logp.exp().masked_fill(empty, 0.0), pi_logp.exp().masked_fill(empty, 0.0)
    outside = ~topk.contains_sampled.unsqueeze(-1)
    if atoms == "replace":
        last = torch.zeros_like(empty).scatter_(-1, topk.rollout_logp.argmin(-1, keepdim=True), value=True)
        empty = empty | (last & outside)
        mu, pi = mu.masked_fill(empty, 0.0), pi.masked_fill(empty, 0.0)
    mu = torch.cat([mu, at.p_logp.exp().unsqueeze(-1).to(mu.dtype) * outside], -1)
    pi = torch.cat([pi, at.q_logp.exp().unsqueeze(-1).to(pi.dtype) * outside], -1)
    mu_tail, pi_tail = (1 - mu.sum(-1)).clamp(min=0), (1 - pi.sum(-1)).clamp(min=0)
    if vocabulary is not None:
        size = vocabulary - (~empty).sum(-1) - outside.squeeze(-1).long()
        mu_tail, pi_tail = mu_tail.masked_fill(size <= 0, 0.0), pi_tail.masked_fill(size <= 0, 0.0)
    if tail == "aggregated":
        return Atoms(mu, pi, mu_tail, pi_tail, pi_tail)
    if vocabulary is None:
        raise ValueError(f"trust_region.tail {tail} needs the size of the vocabulary, TokenBatch.vocabulary")
    uniform = pi_tail / size.clamp(min=1)
    if tail == "uniform":
        return Atoms(mu, pi, mu_tail, pi_tail, uniform)
    if collision is None:
        raise ValueError("trust_region.tail second_moment needs the sum of pi^2, TokenBatch.collision")
    squares = collision.detach().to(pi.dtype) - pi.square().sum(-1)
    # Where the tail is small its sum of squares is lost in rounding, but not its bounds.
    mean = torch.minimum(torch.maximum(squares / pi_tail.clamp(min=MIN_REST), uniform), pi_tail)
    return Atoms(mu, pi, mu_tail, pi_tail, mean)

"""Corrections for the mismatch between trainer and sampler: a detached factor of k = pi_old / mu.

Never used with a ratio that is anchored at the rollout policy, which already holds k. Rejections set the factor to 0
and leave the denominators alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.coordinate import OFF, Coordinate
from cppo_lab.objectives.divergences import DivergenceInputs
from cppo_lab.objectives.divergences import binary_kl as binary_divergence
from cppo_lab.objectives.log_ratios import MAX_LOG_RATIO, log_ratio
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.prefixes import row_mean
from cppo_lab.objectives.rules import Rules

TIS = "https://fengyao.notion.site/off-policy-rl"
Low = Annotated[
    float,
    Param(default=0.0, at_least=0, refuse_unread=True, always_shown=True, about="Lower bound."),
]
High = Annotated[float, Param(default=2.0, above="low", always_shown=True, about="Upper bound.")]


@dataclass(frozen=True)
class CorrectionInputs:
    """What a correction may read, all [B, T] and detached; log-probabilities have been read with `read_logp`."""

    logp: Tensor
    old_logp: Tensor
    rollout_logp: Tensor
    advantages: Tensor
    mask: Tensor

    @cached_property
    def log_k(self) -> Tensor:
        """log k of each token, 0 outside the mask."""
        return log_ratio(self.old_logp, self.rollout_logp)[0].masked_fill(~self.mask, 0.0)

    @cached_property
    def k(self) -> Tensor:
        """k of each token."""
        return self.log_k.exp()

    @cached_property
    def sequence_k(self) -> Tensor:
        """[B, 1] the product of k over the response, its logarithm clamped."""
        return self.log_k.sum(-1, keepdim=True).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


corrections = Rules("correction.kind")


@corrections.register(OFF)
def no_correction(at: CorrectionInputs) -> Tensor:
    """No correction."""
    return torch.ones_like(at.k)


@corrections.register("token_tis", paper=TIS, needs=["old_logp"])
def token_tis(at: CorrectionInputs, *, high: High) -> Tensor:
    """min(k, high)."""
    return at.k.clamp(max=high)


@corrections.register("sequence_tis", paper=TIS, needs=["old_logp"])
def sequence_tis(at: CorrectionInputs, *, high: High) -> Tensor:
    """min(prod k, high)."""
    return at.sequence_k.clamp(max=high)


@corrections.register("icepop", paper="arXiv:2510.18855", needs=["old_logp"])
def icepop(at: CorrectionInputs, *, low: Low, high: High) -> Tensor:
    """k inside [low, high], else 0."""
    return torch.where((at.k >= low) & (at.k <= high), at.k, 0.0)


@corrections.register("mis", needs=["old_logp"])
def mis(at: CorrectionInputs, *, high: High) -> Tensor:
    """prod k if at most high, else 0 (Liu et al. 2025)."""
    return torch.where(at.sequence_k <= high, at.sequence_k, 0.0)


@corrections.register("geometric", needs=["old_logp"])
def geometric(at: CorrectionInputs, *, low: Low, high: High) -> Tensor:
    """Keep the response if exp(mean log k) is in [low, high] (Liu et al. 2025)."""
    mean_k = row_mean(at.log_k, at.mask).unsqueeze(-1).exp()
    return ((mean_k >= low) & (mean_k <= high)).to(at.k.dtype)


@corrections.register("k3", needs=["old_logp"])
def k3(at: CorrectionInputs, *, high: High) -> Tensor:
    """Keep the response if mean(k - 1 - log k) <= high."""
    mean_k3 = row_mean(torch.expm1(at.log_k) - at.log_k, at.mask).unsqueeze(-1)
    return (mean_k3 <= high).to(at.k.dtype)


@corrections.register("opsm", needs=["old_logp"])
def opsm(at: CorrectionInputs, *, high: High) -> Tensor:
    """Drop tokens with A < 0 of responses whose mean log(mu / pi) exceeds high (DeepSeek-V3.2)."""
    log_ratios = log_ratio(at.rollout_logp, at.logp)[0].masked_fill(~at.mask, 0.0)
    drift = row_mean(log_ratios, at.mask).unsqueeze(-1)
    return (~((at.advantages < 0) & (drift > high))).to(at.k.dtype)


@corrections.register("binary_kl", paper="https://ringtech.notion.site/kpop", needs=["old_logp"])
def binary_kl(at: CorrectionInputs, *, high: High) -> Tensor:
    """Keep the token if the larger of its two binary KLs, from pi_old to mu and back, is at most high (KPop)."""
    there = binary_divergence(DivergenceInputs(at.old_logp, at.rollout_logp, reverse=False))
    back = binary_divergence(DivergenceInputs(at.rollout_logp, at.old_logp, reverse=False))
    return (torch.maximum(there, back) <= high).to(at.k.dtype)


class CorrectionSpec(Coordinate, path="correction"):
    """A detached factor of k = pi_old / mu against the mismatch of trainer and sampler (anchor old only)."""

    kind: Annotated[str, corrections] = OFF


def correction_factor(inputs: CorrectionInputs, spec: CorrectionSpec) -> Tensor:
    """The factor on the token loss [B, T], detached, 0 outside the mask."""
    with torch.no_grad():
        factor: Tensor = spec.rule()(inputs)
    return factor.expand_as(inputs.mask) * inputs.mask

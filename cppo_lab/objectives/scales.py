"""Scales: what the radius of a trust region is multiplied by, token by token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.coordinate import OFF, Coordinate
from cppo_lab.objectives.parameters import Param, fail
from cppo_lab.objectives.pooled import PooledTokens, Statistics, quantile
from cppo_lab.objectives.rules import Rules


@dataclass(frozen=True)
class ScaleInputs:
    """What a scale may read, all [B, T] and detached."""

    log_ratio: Tensor
    """The logarithm of the surrogate's importance ratio, 0 outside the mask."""
    mask: Tensor
    rollout_entropy: Tensor | None
    version_lag: Tensor | None
    statistics: Statistics


@dataclass(frozen=True)
class Power:
    """What the bounds of a window are raised to, instead of a factor on their distances from 1."""

    exponent: Tensor


Scale = Tensor | Power
scales = Rules("trust_region.scale")
"""A rule returns a positive factor [B, T] on delta, or on the distances of a window's bounds from 1; or a `Power`."""


@scales.register(OFF)
def no_scale(at: ScaleInputs) -> Tensor:
    """1."""
    return torch.ones_like(at.log_ratio)


@scales.register("entropy", paper="arXiv:2607.22186", needs=["rollout_entropy"])
def entropy(
    at: ScaleInputs,
    *,
    entropy_floor: Annotated[float, Param(above=0, about="Added to the entropy, in nats.")] = 0.01,
) -> Tensor:
    """H + entropy_floor, H the entropy of mu at the position in nats (as ESTR is described)."""
    assert at.rollout_entropy is not None, "a rule that needs rollout_entropy is given it"
    measured = at.rollout_entropy.detach().to(at.log_ratio.dtype).masked_fill(~at.mask, 0.0)
    return measured.clamp(min=0) + entropy_floor


def _tail_quantile(pool: PooledTokens, *, tail_quantile: float) -> dict[str, Tensor]:
    return {"tail_quantile": quantile(pool.log_ratio.abs(), tail_quantile)}


@scales.register("staleness_tail", paper="arXiv:2607.18722", statistic=_tail_quantile)
def staleness_tail(
    at: ScaleInputs,
    *,
    tail_quantile: Annotated[
        float, Param(above=0, at_most=1, always_shown=True, about="q is this quantile of |log ratio|.")
    ] = 0.9,
    tail_kernel: Annotated[
        Literal["excess", "hill"],
        Param(about="1 / (1 + ((|d| - q)/q)^2), continuous at q, or q^2 / (q^2 + d^2)."),
    ] = "excess",
) -> Tensor:
    """1, less where |d| = |log ratio| is above q, its quantile over the minibatch (as SAT is described)."""
    distance, limit = at.log_ratio.abs(), at.statistics["tail_quantile"].to(at.log_ratio)
    excess = (distance - limit) / limit if tail_kernel == "excess" else distance / limit
    return torch.where((distance > limit) & (limit > 0), 1 / (1 + excess.square()), 1.0)


def _check_version_lag(algo: Coordinate) -> None:
    if algo.trust_region.kind != "ratio_clip":
        raise fail(
            "trust_region.scale", "version_lag", "needs trust_region.kind ratio_clip, whose window it widens"
        )


@scales.register("version_lag", paper="arXiv:2512.06547", needs=["version_lag"], check=_check_version_lag)
def version_lag(at: ScaleInputs) -> Power:
    """s, at least 1: bounds are raised to the power s, the sampler's lag in training steps (A-3PO)."""
    assert at.version_lag is not None, "a rule that needs version_lag is given it"
    return Power(at.version_lag.to(at.log_ratio.dtype).clamp(min=1))


def scaled_bounds(low: float, high: float, scale: Scale) -> tuple[Tensor, Tensor]:
    """The bounds 1 - low and 1 + high of a ratio, scaled; both [B, T]."""
    if isinstance(scale, Power):
        below = math.log1p(-low) if low < 1 else -math.inf
        return (below * scale.exponent).exp(), (math.log1p(high) * scale.exponent).exp()
    return (1 - low * scale).clamp(min=0), 1 + high * scale


def factor_of(scale: Scale) -> Tensor:
    """What the logarithms of bounds are multiplied by, [B, T]: raising to a power scales them."""
    return scale.exponent if isinstance(scale, Power) else scale

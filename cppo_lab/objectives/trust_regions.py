"""Trust regions: which tokens may keep pushing the policy away, as a detached gate in [0, 1].

Ratio clip: PPO (arXiv 1707.06347). Divergence threshold: DPPO (arXiv 2602.04879). Sequence max and mean: TRM
(arXiv 2512.23075). Prefix budget: CPPO (arXiv 2606.10968), whose equation numbers are used below.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cppo_lab.objectives.budgets import allowance, effective_budget
from cppo_lab.objectives.coordinates import TrustRegionSpec
from cppo_lab.objectives.prefixes import positions, row_mean, shift_right
from cppo_lab.objectives.thresholds import Thresholds
from cppo_lab.objectives.weights import position_weights


@dataclass(frozen=True)
class Decision:
    """What a trust region decided, detached; tensors that a rule does not have are None."""

    gate: Tensor
    """[B, T] factor on the gradient: 1 keeps, 0 drops; 0 outside the mask."""
    by_threshold: Tensor
    """[B, T] bool: gate below 1 because the token (or its response) breaks the token-level threshold."""
    by_budget: Tensor
    """[B, T] bool: gate below 1 because of the prefix budget alone."""
    threshold: Tensor | None = None
    """[B, T] the threshold c_t in force on w_t D_t; may be negative under a prefix budget."""
    prefix_threshold: Tensor | None = None
    """[B, T] what the prefix leaves, allowance_t - S_{t-1}: c_t before its cap at delta; None without a budget."""
    weights: Tensor | None = None
    """[B, T] w_t."""
    prefix_cost: Tensor | None = None
    """[B, T] S_t, inclusive; constant across holes and padding."""
    prefix_weight: Tensor | None = None
    """[B, T] W_t, inclusive; constant across holes and padding."""
    budget: Tensor | None = None
    """[B] delta_b in force."""
    violation: Tensor | None = None
    """[B, T] the score x_t of Eq. 19, at most 1 where the hard rule keeps a token; None under the hard
    gate."""


@dataclass(frozen=True)
class ClipWindow:
    """Bounds of the importance ratio, each a float or a tensor [B, T]."""

    low: Tensor | float
    high: Tensor | float
    dual: Tensor | float | None


@torch.no_grad()
def no_region(mask: Tensor, dtype: torch.dtype) -> Decision:
    """Every response token is kept."""
    nothing = torch.zeros_like(mask)
    return Decision(gate=mask.to(dtype), by_threshold=nothing, by_budget=nothing)


def clip_window(spec: TrustRegionSpec, mask: Tensor, dtype: torch.dtype) -> ClipWindow:
    """[1 - clip_low, 1 + clip_high], or in log space exp of [-clip_low, clip_high] times t**clip_power."""
    assert spec.clip_low is not None, "ratio_clip was validated to have clip_low"
    assert spec.clip_high is not None, "ratio_clip was validated to have clip_high"
    if spec.clip_space == "ratio":
        return ClipWindow(max(1 - spec.clip_low, 0.0), 1 + spec.clip_high, spec.dual_clip)
    scale = positions(mask).clamp(min=1).to(dtype) ** spec.clip_power
    dual = None if spec.dual_clip is None else (spec.dual_clip * scale).exp()
    return ClipWindow((-spec.clip_low * scale).exp(), (spec.clip_high * scale).exp(), dual)


@torch.no_grad()
def ratio_clip(ratio: Tensor, advantages: Tensor, mask: Tensor, window: ClipWindow) -> Decision:
    """Drop where PPO's clipped minimum has no gradient: A > 0 above the window, A < 0 below it (or above
    dual).

    Equality keeps. `ratio` [B, T] is the surrogate's importance ratio.
    """
    cut = ((advantages > 0) & (ratio > window.high)) | ((advantages < 0) & (ratio < window.low))
    if window.dual is not None:
        cut = cut | ((advantages < 0) & (ratio > window.dual))
    cut = cut & mask
    return Decision(gate=(mask & ~cut).to(ratio.dtype), by_threshold=cut, by_budget=torch.zeros_like(cut))


@torch.no_grad()
def divergence_threshold(
    divergence: Tensor, away: Tensor, mask: Tensor, spec: TrustRegionSpec, delta: float
) -> Decision:
    """DPPO: drop tokens that move away from the anchor and have D_t > delta."""
    violation = None if spec.gate == "hard" else divergence / delta
    gate = _gate(violation, divergence <= delta, away, mask, spec, divergence.dtype)
    threshold = torch.full_like(divergence, delta).masked_fill(~mask, 0.0)
    return Decision(
        gate=gate,
        by_threshold=away & mask & (divergence > delta),
        by_budget=torch.zeros_like(mask),
        threshold=threshold,
        violation=violation,
    )


@torch.no_grad()
def sequence_region(
    divergence: Tensor | None,
    mean_divergence: Tensor | None,
    mask: Tensor,
    spec: TrustRegionSpec,
    at: Thresholds,
) -> Decision:
    """TRM: drop whole responses whose largest or mean D_t is too large; there is no toward-anchor clause.

    `divergence` [B, T] is tested by its maximum against delta, `mean_divergence` by its mean against
    delta_mean; the tests present are joined by "and".
    """
    reference = divergence if divergence is not None else mean_divergence
    assert reference is not None, "one of the two divergences must be given"
    keep = torch.ones_like(reference[:, :1], dtype=torch.bool)
    violation = torch.zeros_like(reference[:, :1])
    if divergence is not None and at.delta is not None:
        largest = divergence.amax(-1, keepdim=True)
        keep, violation = keep & (largest <= at.delta), torch.maximum(violation, largest / at.delta)
    if mean_divergence is not None and at.delta_mean is not None:
        mean = row_mean(mean_divergence, mask).unsqueeze(-1)
        keep, violation = keep & (mean <= at.delta_mean), torch.maximum(violation, mean / at.delta_mean)
    keep = keep.expand_as(mask)
    score = None if spec.gate == "hard" else violation.expand_as(reference).masked_fill(~mask, 0.0)
    return Decision(
        gate=_gate(score, keep, mask, mask, spec, reference.dtype),
        by_threshold=mask & ~keep,
        by_budget=torch.zeros_like(mask),
        violation=score,
    )


@torch.no_grad()
def prefix_budget(
    divergence: Tensor,
    away: Tensor,
    mask: Tensor,
    spec: TrustRegionSpec,
    at: Thresholds,
    weight_order: Tensor | None = None,
) -> Decision:
    """CPPO, Eq. 8-10 (hard) and 19-20 (soft): c_t = min(delta, allowance_t - S_{t-1}), keep where w_t D_t <=
    c_t.

    Every token is charged to the prefix: kept, dropped or moving toward the anchor (Algorithm 1).
    """
    assert at.delta is not None, "prefix_budget was validated to have delta"
    weights = position_weights(mask, spec.weights, weight_order, divergence.dtype)
    cost = weights * divergence
    prefix_cost, prefix_weight = cost.cumsum(-1), weights.cumsum(-1)
    size = 0.0 if at.budget is None else at.budget
    budget = effective_budget(divergence, mask, spec.budget, size)
    allowed = allowance(prefix_weight, mask, budget, at.delta, spec.budget)
    if spec.budget.kind == "terminal":
        charged = prefix_cost[:, -1:].expand_as(cost)
        charged_before = charged - cost
    else:
        charged, charged_before = prefix_cost, shift_right(prefix_cost)
    left = allowed - charged_before
    threshold = left.clamp(max=at.delta)
    within = cost <= threshold
    violation = None
    if spec.gate != "hard":
        # At allowance zero (strict form, budget zero) any cost is an infinite violation and no cost is none.
        excess = torch.where(allowed > 0, charged / allowed, torch.where(charged > 0, torch.inf, 0.0))
        violation = torch.maximum(cost / at.delta, excess).masked_fill(~mask, 0.0)
    violated = away & mask & ~within
    return Decision(
        gate=_gate(violation, within, away, mask, spec, cost.dtype),
        by_threshold=violated & (cost > at.delta),
        by_budget=violated & (cost <= at.delta),
        threshold=threshold.masked_fill(~mask, 0.0),
        prefix_threshold=None if spec.budget.kind == "none" else left.masked_fill(~mask, 0.0),
        weights=weights,
        prefix_cost=prefix_cost,
        prefix_weight=prefix_weight,
        budget=None if spec.budget.kind == "none" else budget,
        violation=violation,
    )


def _gate(
    violation: Tensor | None,
    within: Tensor,
    subject: Tensor,
    mask: Tensor,
    spec: TrustRegionSpec,
    dtype: torch.dtype,
) -> Tensor:
    """The gate of the tokens `subject` to the region; the hard gate follows `within`, the soft ones x."""
    if violation is None:
        return (mask & (within | ~subject)).to(dtype)
    if spec.gate == "inverse":
        passed = 1 / violation.clamp(min=1)
    else:
        share = torch.sigmoid(spec.gate_temperature * (violation.clamp(min=1) - 1))
        passed = 4 * share * (1 - share)
    return passed.masked_fill(~subject, 1.0) * mask

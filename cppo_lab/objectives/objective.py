"""`token_objective`: one method applied to one batch.

divergence -> trust region -> surrogate -> correction -> regularisers, as pure functions of a `TokenBatch`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.corrections import CorrectionInputs, correction_factor
from cppo_lab.objectives.divergences import divergence
from cppo_lab.objectives.log_ratios import log_ratio, moves_away, read_logp
from cppo_lab.objectives.regularisers import regulariser_loss
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.objectives.surrogates import SurrogateInputs, importance_ratio, surrogate_loss
from cppo_lab.objectives.thresholds import Thresholds, thresholds_at
from cppo_lab.objectives.trust_regions import Decision, RegionInputs


@dataclass(frozen=True)
class TokenObjective:
    """The un-aggregated loss of a batch and what was decided on the way.

    Tensors are [B, T] and 0 (False) outside the response mask unless said otherwise; all but `loss`,
    `policy_loss` and `regulariser` are detached.
    """

    loss: Tensor
    """To minimise: policy_loss + regulariser."""
    policy_loss: Tensor
    regulariser: Tensor | None
    """KL and entropy terms; None when both are off."""
    surrogate: Tensor
    """-A * gate * rho with the token's own ratio: comparable between methods, unlike their losses."""
    anchor: str
    """The policy in the denominator, "rollout" or "old"."""
    log_ratio: Tensor
    """log(pi / anchor), clamped."""
    ratio: Tensor
    """The surrogate's importance ratio; 1 outside the mask."""
    clamped: Tensor
    """bool: the log-ratio hit the safety clamp."""
    toward: Tensor
    """bool: A (rho - 1) <= 0, the update does not move the policy away from the anchor."""
    advantages: Tensor
    gate: Tensor
    """In [0, 1]; under ratio_clip, 0 where the gradient is really cut."""
    masked: Tensor
    """bool: gate below 1. A soft gate counts as masking what the hard one would drop."""
    masked_by_threshold: Tensor
    """bool: masked because the token (or its response) breaks the token-level threshold."""
    masked_by_budget: Tensor
    """bool: masked because of the prefix budget alone."""
    divergence: Tensor | None
    """D_t; None when the method has none."""
    weights: Tensor | None
    threshold: Tensor | None
    """c_t, what w_t D_t is compared with."""
    prefix_threshold: Tensor | None
    """What the prefix leaves: c_t before its cap at delta; None without a budget."""
    effective_budget: Tensor | None
    """[B] delta_b in force."""
    budget_range: tuple[float, float] | None
    """The least and the most that the budget can be; None unless it is chosen per response."""
    prefix_cost: Tensor | None
    """S_t, inclusive; constant across holes and padding."""
    prefix_weight: Tensor | None
    """W_t, inclusive; constant across holes and padding."""
    violation: Tensor | None
    """x_t of Eq. 19; None under the hard gate."""
    correction: Tensor | None
    """Factor against the mismatch of trainer and sampler; None when off."""
    thresholds: Thresholds
    """Those in force at this training step."""


def token_objective(
    batch: TokenBatch,
    algo: AlgoSpec,
    *,
    progress: float = 0.0,
    step: int = 0,
    threshold_factor: float = 1.0,
) -> TokenObjective:
    """Apply `algo` to `batch`: the loss of each token and every intermediate quantity.

    `step` finished training steps and `progress` of the run in [0, 1] place schedules; `threshold_factor` is
    that of a `schedules.ThresholdController`. Everything is computed in float32 at least. Raises
    ValueError when the batch lacks a tensor that `algo.requirements` names.
    """
    mask = batch.response_mask
    logp = read_logp(batch.logp, mask)
    anchor_logp = _anchor_logp(batch, algo)
    advantages = _token_advantages(batch, logp.dtype)
    log_ratios, clamped = log_ratio(logp, anchor_logp)
    ratio = importance_ratio(log_ratios, mask, algo.surrogate)
    fixed_log_ratio = log_ratios.detach()
    away = moves_away(advantages, fixed_log_ratio) & mask
    at = thresholds_at(algo.trust_region, step=step, progress=progress, controller=threshold_factor)
    measured = (algo.divergence, logp.detach(), anchor_logp, mask, batch.topk, batch.full)
    distance = divergence(*measured)
    decision = _decide(
        RegionInputs(
            spec=algo.trust_region,
            ratio=ratio.detach(),
            advantages=advantages,
            away=away,
            mask=mask,
            thresholds=at,
            distance=distance,
            mean_distance=divergence(*measured, selector="mean_kind"),
            weight_order=batch.weight_order,
        )
    )
    inputs = SurrogateInputs(
        logp, anchor_logp, log_ratios, ratio, advantages, mask, decision.gate, decision.window
    )
    policy_loss = surrogate_loss(inputs, algo.surrogate)
    factor = _correction(batch, algo, logp.detach(), advantages)
    if factor is not None:
        policy_loss = policy_loss * factor
    policy_loss = policy_loss.masked_fill(~mask, 0.0)
    regulariser = regulariser_loss(batch, logp, algo.regulariser)
    return TokenObjective(
        loss=policy_loss if regulariser is None else policy_loss + regulariser,
        policy_loss=policy_loss,
        regulariser=regulariser,
        surrogate=-advantages * decision.gate * fixed_log_ratio.exp(),
        anchor=algo.anchor,
        log_ratio=fixed_log_ratio,
        ratio=ratio.detach(),
        clamped=clamped,
        toward=mask & ~away,
        advantages=advantages,
        gate=decision.gate,
        masked=decision.by_threshold | decision.by_budget,
        masked_by_threshold=decision.by_threshold,
        masked_by_budget=decision.by_budget,
        divergence=distance,
        weights=decision.weights,
        threshold=decision.threshold,
        prefix_threshold=decision.prefix_threshold,
        effective_budget=decision.budget,
        budget_range=decision.budget_range,
        prefix_cost=decision.prefix_cost,
        prefix_weight=decision.prefix_weight,
        violation=decision.violation,
        correction=factor,
        thresholds=at,
    )


def _anchor_logp(batch: TokenBatch, algo: AlgoSpec) -> Tensor:
    if algo.anchor == "rollout":
        return read_logp(batch.rollout_logp.detach(), batch.response_mask)
    if batch.old_logp is None:
        raise ValueError(f"{algo.name} is anchored at old and needs TokenBatch.old_logp")
    return read_logp(batch.old_logp.detach(), batch.response_mask)


def _token_advantages(batch: TokenBatch, dtype: torch.dtype) -> Tensor:
    advantages = batch.advantages.detach()
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(-1).expand(batch.logp.shape)
    return advantages.to(dtype).masked_fill(~batch.response_mask, 0.0)


@torch.no_grad()
def _decide(inputs: RegionInputs) -> Decision:
    decision: Decision = inputs.spec.rule(overrides=inputs.thresholds.values)(inputs)
    return decision


def _correction(batch: TokenBatch, algo: AlgoSpec, logp: Tensor, advantages: Tensor) -> Tensor | None:
    if algo.correction.is_off:
        return None
    if batch.old_logp is None:
        raise ValueError(f"correction.kind {algo.correction.kind} needs TokenBatch.old_logp")
    mask = batch.response_mask
    old_logp = read_logp(batch.old_logp.detach(), mask)
    rollout_logp = read_logp(batch.rollout_logp.detach(), mask)
    return correction_factor(
        CorrectionInputs(logp, old_logp, rollout_logp, advantages, mask), algo.correction
    )

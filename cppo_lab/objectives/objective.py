"""`token_objective`: one method applied to one batch.

divergence -> trust region -> surrogate -> correction -> regularisers, as pure functions of a `TokenBatch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.coordinate import OFF
from cppo_lab.objectives.corrections import CorrectionInputs, correction_factor
from cppo_lab.objectives.decisions import Decision
from cppo_lab.objectives.directions import Direction, DirectionInputs
from cppo_lab.objectives.divergences import DivergenceInputs
from cppo_lab.objectives.log_ratios import read_logp
from cppo_lab.objectives.measured import Measured, measured
from cppo_lab.objectives.pooled import PooledTokens, Statistics, merged, pooled
from cppo_lab.objectives.regularisers import regulariser_loss
from cppo_lab.objectives.scales import ScaleInputs
from cppo_lab.objectives.selections import Selected, SelectionInputs
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.objectives.surrogates import SurrogateInputs, surrogate_loss
from cppo_lab.objectives.thresholds import Thresholds, thresholds_at
from cppo_lab.objectives.trust_regions import RegionInputs


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
    """In [0, 1], or -1 under the gate `reflect`; under ratio_clip, 0 where the gradient is really cut."""
    masked: Tensor
    """bool: gate below 1. A soft gate counts as masking what the hard one would drop."""
    masked_by_threshold: Tensor
    """bool: masked because the token (or its response) breaks the token-level threshold, or is selected."""
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
    subject: Tensor | None
    """bool: the tokens that may be dropped, where these are not just those that move away."""
    predicted_change: Tensor | None
    """The derivative of D along the token's own update; None where none is predicted."""
    surrogate_weight: Tensor | None
    """The detached weight on log pi; None for surrogates that have none to watch."""
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
    statistics: Statistics | None = None,
) -> TokenObjective:
    """Apply `algo` to `batch`: the loss of each token and every intermediate quantity.

    `step` finished training steps and `progress` of the run in [0, 1] place schedules; `threshold_factor` is
    that of a `schedules.ThresholdController`. `statistics` are those of the whole minibatch (`batch_statistics`),
    for methods whose requirements name them. Everything is computed in float32 at least. Raises ValueError
    when the batch lacks a tensor that `algo.requirements` names, or statistics that it needs.
    """
    mask = batch.response_mask
    found = measured(batch, algo)
    fixed_log_ratio = found.log_ratios.detach()
    at = thresholds_at(algo.trust_region, step=step, progress=progress, controller=threshold_factor)
    given = _given_statistics(algo, statistics)
    with torch.no_grad():
        decision = _decide(batch, algo, found, at, given)
    selected = _selected(batch, algo, found, decision, given)
    if selected.dropped is not None:
        decision = _without(decision, selected.dropped)
    inputs = SurrogateInputs(
        found.logp,
        found.anchor_logp,
        found.log_ratios,
        found.ratio,
        found.advantages,
        mask,
        decision.gate,
        decision.window,
    )
    policy_loss, weight = surrogate_loss(inputs, algo.surrogate)
    if selected.dropped is not None:
        policy_loss = policy_loss.masked_fill(selected.dropped, 0.0)
    if selected.penalty is not None:
        policy_loss = policy_loss + selected.penalty
    factor = _correction(batch, algo, found.logp.detach(), found.advantages)
    if factor is not None:
        policy_loss = policy_loss * factor
    policy_loss = policy_loss.masked_fill(~mask, 0.0)
    regulariser = regulariser_loss(batch, found.logp, algo.regulariser, found.log_ratios, decision.gate)
    return TokenObjective(
        loss=policy_loss if regulariser is None else policy_loss + regulariser,
        policy_loss=policy_loss,
        regulariser=regulariser,
        surrogate=-found.advantages * decision.gate * fixed_log_ratio.exp(),
        anchor=algo.anchor,
        log_ratio=fixed_log_ratio,
        ratio=found.ratio.detach(),
        clamped=found.clamped,
        toward=mask & ~found.away,
        advantages=found.advantages,
        gate=decision.gate,
        masked=decision.by_threshold | decision.by_budget,
        masked_by_threshold=decision.by_threshold,
        masked_by_budget=decision.by_budget,
        divergence=found.distance,
        weights=decision.weights,
        threshold=decision.threshold,
        prefix_threshold=decision.prefix_threshold,
        effective_budget=decision.budget,
        budget_range=decision.budget_range,
        prefix_cost=decision.prefix_cost,
        prefix_weight=decision.prefix_weight,
        violation=decision.violation,
        subject=decision.subject,
        predicted_change=decision.predicted_change,
        surrogate_weight=None if weight is None else weight.masked_fill(~mask, 0.0),
        correction=factor,
        thresholds=at,
    )


def batch_statistics(
    parts: Iterable[TokenBatch],
    algo: AlgoSpec,
    *,
    progress: float = 0.0,
    step: int = 0,
    threshold_factor: float = 1.0,
) -> Statistics:
    """What the rules of `algo` read of a whole minibatch, given as its micro-batches; empty where they read nothing.

    The other arguments are those of `token_objective`. Raises ValueError when a batch lacks a tensor.
    """
    if not algo.requirements.needs_statistics:
        return {}
    at = thresholds_at(algo.trust_region, step=step, progress=progress, controller=threshold_factor)
    with torch.no_grad():
        pool = pooled(_pooled(part, algo, at) for part in parts)
        return merged(statistic(pool) for statistic in algo.statistics(at.values))


def _pooled(batch: TokenBatch, algo: AlgoSpec, at: Thresholds) -> PooledTokens:
    mask, found = batch.response_mask, measured(batch, algo)
    kept = mask
    if not algo.selection.is_off:
        # The region of a method with a selection reads no statistics itself.
        kept = mask & ~_masked(_decide(batch, algo, found, at, {}))
    prompt = None if batch.prompt is None else batch.prompt.unsqueeze(-1).expand_as(mask)[mask]
    return PooledTokens(
        log_ratio=found.ratio[mask].double().log(),
        advantages=found.advantages[mask],
        away=found.away[mask],
        distance=None if found.distance is None else found.distance[mask].double(),
        prompt=prompt,
        logp=found.logp[mask],
        kept=kept[mask],
        order=None if batch.selection_order is None else batch.selection_order[mask],
    )


def _masked(decision: Decision) -> Tensor:
    return decision.by_threshold | decision.by_budget


def _without(decision: Decision, dropped: Tensor) -> Decision:
    return replace(
        decision,
        gate=decision.gate.masked_fill(dropped, 0.0),
        by_threshold=decision.by_threshold | dropped,
    )


def _selected(
    batch: TokenBatch, algo: AlgoSpec, found: Measured, decision: Decision, statistics: Statistics
) -> Selected:
    if algo.selection.is_off:
        return Selected()
    mask = batch.response_mask
    if algo.needs("selection_order") and batch.selection_order is None:
        raise ValueError(f"{algo.name} needs TokenBatch.selection_order")
    selected: Selected = algo.selection.rule()(
        SelectionInputs(
            log_ratios=found.log_ratios,
            logp=found.logp.detach(),
            advantages=found.advantages,
            kept=mask & ~_masked(decision),
            mask=mask,
            order=batch.selection_order,
            statistics=statistics,
        )
    )
    return selected


def _given_statistics(algo: AlgoSpec, statistics: Statistics | None) -> Statistics:
    if statistics is None and algo.requirements.needs_statistics:
        raise ValueError(
            f"{algo.name} reads statistics of the whole minibatch: pass statistics=batch_statistics(...) of all its "
            "micro-batches"
        )
    return statistics or {}


def _direction(batch: TokenBatch, algo: AlgoSpec, found: Measured) -> Direction | None:
    region = algo.trust_region
    if not region.uses("direction"):
        return None
    policies = DivergenceInputs(found.anchor_logp, found.logp.detach(), False, batch.topk, batch.full)
    direction: Direction = region.rule("direction")(
        DirectionInputs(
            advantages=found.advantages,
            away=found.away,
            mask=batch.response_mask,
            divergence=algo.divergence,
            policies=policies,
            vocabulary=batch.vocabulary,
            collision=batch.collision,
        )
    )
    return direction


def _decide(
    batch: TokenBatch, algo: AlgoSpec, found: Measured, at: Thresholds, statistics: Statistics
) -> Decision:
    region, mask = algo.trust_region, batch.response_mask
    for need in ("rollout_entropy", "version_lag"):
        if algo.needs(need) and getattr(batch, need) is None:
            raise ValueError(f"{algo.name} needs TokenBatch.{need}")
    scale = None
    if region.scale != OFF:
        log_ratio = found.ratio.detach().log()
        scale = region.rule("scale")(
            ScaleInputs(log_ratio, mask, batch.rollout_entropy, batch.version_lag, statistics)
        )
    inputs = RegionInputs(
        spec=region,
        ratio=found.ratio.detach(),
        advantages=found.advantages,
        away=found.away,
        mask=mask,
        thresholds=at,
        distance=found.distance,
        mean_distance=found.mean_distance,
        weight_order=batch.weight_order,
        scale=scale,
        rollout_entropy=batch.rollout_entropy,
        version_lag=batch.version_lag,
        prompt=batch.prompt,
        statistics=statistics,
        direction=_direction(batch, algo, found),
    )
    decision: Decision = region.rule(overrides=at.values)(inputs)
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

"""Metrics of an update, accumulated as sums and counts so that means over micro-batches are exact.

All are over response tokens unless the name says otherwise; the name of every ratio and KL contains its anchor. An
undefined value (nothing was masked, no budget) is NaN, never 0.
"""

import math

import torch
from torch import Tensor

from cppo_lab.diagnostics.drift import Drift
from cppo_lab.diagnostics.sums import Sums, quantile
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.log_ratios import moves_away, read_logp
from cppo_lab.objectives.objective import TokenObjective

_UNDECIDED = 1e-6
"""A predicted change this small has, in float32, no certain sign."""
_VANISHED = 0.01
"""A response whose weights are all below this adds nothing to speak of to the gradient."""
_ROUNDING = 1e-6
"""Slack in comparing a float32 budget with the Python numbers that bound it."""


class Diagnostics:
    """Accumulates the diagnostics of the micro-batches and updates of one training step.

    Keeps one float32 per token and per row for the quantiles; everything else is a sum. `policy/divergence` is D_t of
    the method's own divergence, against its own anchor.
    """

    def __init__(self) -> None:
        self._sums = Sums()
        # Against the sampler always; also against pi_old where the method's ratio has it below.
        self._drifts = {"rollout": Drift("rollout")}
        self._pressures: list[Tensor] = []

    @torch.no_grad()
    def update(self, batch: TokenBatch, objective: TokenObjective) -> None:
        """Add one micro-batch and its objective."""
        mask = batch.response_mask
        self._sums.add("tokens", mask)
        self._update_policy(batch, objective)
        self._update_masks(mask, objective)
        if objective.effective_budget is not None:
            self._update_budget(mask, objective)
        if objective.surrogate_weight is not None:
            rows = mask.any(-1)
            self._sums.add("weighted rows", rows)
            self._sums.add("vanished rows", rows & (objective.surrogate_weight.amax(-1) < _VANISHED))

    def _update_policy(self, batch: TokenBatch, objective: TokenObjective) -> None:
        mask, sums = batch.response_mask, self._sums
        logp = read_logp(batch.logp.detach(), mask)
        self._drifts["rollout"].update(logp, read_logp(batch.rollout_logp, mask), mask)
        if objective.anchor == "old" and batch.old_logp is not None:
            drift = self._drifts.setdefault("old", Drift("old"))
            drift.update(logp, read_logp(batch.old_logp, mask), mask)
        sums.add("clamped", objective.clamped & mask)
        sums.add("surrogate", objective.surrogate)
        if objective.divergence is not None:
            sums.add("divergence tokens", mask)
            sums.add("divergence", objective.divergence)
        if batch.entropy is not None:
            sums.add("entropy tokens", mask)
            sums.add("entropy", batch.entropy.detach()[mask])

    def _update_masks(self, mask: Tensor, objective: TokenObjective) -> None:
        sums = self._sums
        positive, negative = objective.advantages > 0, objective.advantages < 0
        sums.add("masked", objective.masked)
        sums.add("masked by threshold", objective.masked_by_threshold)
        sums.add("masked by budget", objective.masked_by_budget)
        sums.add("gate", objective.gate)
        sums.add("positive", positive)
        sums.add("negative", negative)
        sums.add("effective", positive | negative)
        sums.add("masked positive", objective.masked & positive)
        sums.add("masked negative", objective.masked & negative)
        sums.add("masked effective", objective.masked & (positive | negative))
        sums.add("toward", objective.toward & (positive | negative))
        if objective.subject is not None:
            self._update_direction(objective, positive | negative)
        if objective.threshold is not None:
            sums.add("threshold tokens", mask)
            sums.add("threshold", objective.threshold)

    def _update_direction(self, objective: TokenObjective, effective: Tensor) -> None:
        sums, change = self._sums, objective.predicted_change
        toward, away = effective & objective.toward, effective & ~objective.toward
        for name, tokens in (("toward", toward), ("away", away)):
            sums.add(f"all {name}", tokens)
            sums.add(f"masked {name}", objective.masked & tokens)
        if change is not None:
            sums.add("predicted", effective)
            sums.add("undecided", effective & (change.abs() < _UNDECIDED))
            sums.add("turned", effective & (moves_away(objective.advantages, change) != away))

    def _update_budget(self, mask: Tensor, objective: TokenObjective) -> None:
        assert objective.effective_budget is not None, "the caller checked it"
        assert objective.prefix_cost is not None, "a budget comes with prefix sums"
        assert objective.prefix_weight is not None, "a budget comes with prefix sums"
        assert objective.threshold is not None, "a budget comes with thresholds"
        rows = mask.any(-1)
        budget = objective.effective_budget[rows]
        pressure = (objective.prefix_cost.amax(-1) / objective.prefix_weight.amax(-1).clamp(min=1e-12))[rows]
        sums = self._sums
        sums.add("rows", rows)
        sums.add("budget", budget)
        if objective.budget_range is not None:
            least, most = objective.budget_range
            sums.add("adaptive rows", rows)
            sums.add("floor rows", budget <= least * (1 + _ROUNDING))
            sums.add("ceiling rows", budget >= most * (1 - _ROUNDING))
        sums.add("pressure", pressure)
        sums.add("negative rows", ((objective.threshold < 0) & mask).any(-1))
        self._pressures.append(pressure.float())

    def result(self) -> dict[str, float]:
        """The metrics so far, by name."""
        sums = self._sums

        def mean(name: str, over: str = "tokens") -> float:
            return sums.ratio(name, over)

        pressures = torch.cat(self._pressures) if self._pressures else torch.empty(0)
        weights = {}
        if sums.total("weighted rows"):
            weights["policy/vanished_share"] = mean("vanished rows", "weighted rows")
        drifts = [drift.result() for drift in self._drifts.values()]
        return (
            {name: value for drift in drifts for name, value in drift.items()}
            | self._direction()
            | weights
            | {
                "policy/divergence": mean("divergence", "divergence tokens"),
                "policy/entropy": mean("entropy", "entropy tokens"),
                "policy/log_ratio_clamped": sums.total("clamped"),
                "policy/surrogate": mean("surrogate"),
                "mask/share": mean("masked"),
                "mask/share_threshold": mean("masked by threshold"),
                "mask/share_budget": mean("masked by budget"),
                "mask/budget_share": mean("masked by budget", "masked"),
                "mask/share_effective": mean("masked effective", "effective"),
                "mask/share_positive_advantage": mean("masked positive", "positive"),
                "mask/share_negative_advantage": mean("masked negative", "negative"),
                "mask/gate_mean": mean("gate"),
                "mask/toward_share": mean("toward", "effective"),
                "mask/threshold_mean": mean("threshold", "threshold tokens"),
                "budget/effective": mean("budget", "rows"),
                "budget/floor_share": mean("floor rows", "adaptive rows"),
                "budget/ceiling_share": mean("ceiling rows", "adaptive rows"),
                "budget/pressure_mean": mean("pressure", "rows"),
                "budget/pressure_p90": quantile(pressures, 0.9),
                "budget/negative_rows": mean("negative rows", "rows"),
            }
        )

    def _direction(self) -> dict[str, float]:
        """The masked share by direction, for methods that drop other tokens than those that move away."""
        sums = self._sums
        found = {
            f"mask/share_{name}": sums.ratio(f"masked {name}", f"all {name}")
            for name in ("away", "toward")
            if sums.has(f"all {name}")
        }
        if sums.has("predicted"):
            found["mask/direction_turned"] = sums.ratio("turned", "predicted")
            found["mask/direction_undecided"] = sums.ratio("undecided", "predicted")
        return found


@torch.no_grad()
def mismatch(old_logp: Tensor, rollout_logp: Tensor, mask: Tensor) -> dict[str, float]:
    """How far the trainer's log-probabilities of the sampled tokens are from the sampler's, before any
    update.

    All tensors [B, T]. Absolute differences of log-probabilities (mean, 0.99 quantile, maximum) and of
    probabilities; two relative errors, which are the lab's own definitions (sum |d| / sum |log mu|, and the mean of
    |d| / max(|log mu|, 1e-8)); the correlation of the probabilities (NaN when either is constant).
    """
    old, rollout = read_logp(old_logp, mask)[mask].double(), read_logp(rollout_logp, mask)[mask].double()
    difference = (old - rollout).abs()
    probabilities = (old.exp() - rollout.exp()).abs()
    if difference.numel() == 0:
        return dict.fromkeys(_MISMATCH_NAMES, math.nan)
    relative = difference / rollout.abs().clamp(min=1e-8)
    values: tuple[Tensor | float, ...] = (
        difference.mean(),
        quantile(difference, 0.99),
        difference.max(),
        difference.sum() / rollout.abs().sum(),
        relative.mean(),
        probabilities.mean(),
        probabilities.max(),
        _correlation(old.exp(), rollout.exp()),
    )
    return {name: float(value) for name, value in zip(_MISMATCH_NAMES, values, strict=True)}


_MISMATCH_NAMES = (
    "mismatch/logp_absdiff_mean",
    "mismatch/logp_absdiff_p99",
    "mismatch/logp_absdiff_max",
    "mismatch/logp_relative_of_sums",
    "mismatch/logp_relative_mean",
    "mismatch/prob_absdiff_mean",
    "mismatch/prob_absdiff_max",
    "mismatch/prob_correlation",
)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    if first.numel() < 2:
        return torch.tensor(math.nan)
    # Constant inputs divide 0 by 0, which is the NaN that is wanted.
    first, second = first - first.mean(), second - second.mean()
    return (first * second).sum() / (first.square().sum() * second.square().sum()).sqrt()

"""Thresholds in force at one training step: schedules of delta and of the budget, and a controller."""

import math
from bisect import bisect_right
from dataclasses import dataclass

from cppo_lab.objectives.coordinates import ScheduleSpec, TrustRegionSpec


@dataclass(frozen=True)
class Thresholds:
    """delta, delta_mean and the budget's size delta_b, all in units of the divergence; None where unused."""

    delta: float | None
    delta_mean: float | None
    budget: float | None
    budget_ceiling: float | None
    """The most that an adaptive budget may reach."""


def schedule_factor(spec: ScheduleSpec, *, step: int, progress: float, controller: float = 1.0) -> float:
    """The factor on a threshold after `step` finished training steps, `progress` of the run in [0, 1].

    Only a schedule over the whole run reads `progress`; `controller` is the factor of `target_share`.
    """
    if spec.kind == "constant":
        return 1.0
    if spec.kind == "target_share":
        return controller
    if spec.kind == "piecewise":
        return _interpolate(spec.points, step)
    done = min(max(progress if spec.steps is None else step / spec.steps, 0.0), 1.0)
    if spec.kind == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return 1 + (spec.final - 1) * done


def _interpolate(points: tuple[tuple[int, float], ...], step: int) -> float:
    index = bisect_right([at for at, _ in points], step)
    if index == 0:
        return points[0][1]
    if index == len(points):
        return points[-1][1]
    (left, low), (right, high) = points[index - 1], points[index]
    return low + (high - low) * (step - left) / (right - left)


def thresholds_at(
    region: TrustRegionSpec, *, step: int = 0, progress: float = 0.0, controller: float = 1.0
) -> Thresholds:
    """The thresholds in force; a relative budget follows the scheduled delta."""
    factor = schedule_factor(region.schedule, step=step, progress=progress, controller=controller)
    delta = None if region.delta is None else region.delta * factor
    delta_mean = None if region.delta_mean is None else region.delta_mean * factor
    budget = None
    if region.budget.kind != "none":
        budget = region.budget.size * schedule_factor(
            region.budget.schedule, step=step, progress=progress, controller=controller
        )
        if region.budget.relative:
            assert delta is not None, "a budget exists only under prefix_budget, which has a delta"
            budget *= delta
    ceiling = None
    if budget is not None and region.budget.kind == "adaptive":
        ceiling = budget * region.budget.ceiling
    return Thresholds(delta=delta, delta_mean=delta_mean, budget=budget, budget_ceiling=ceiling)


class MaskedShareController:
    """Multiplies a threshold so that the share of masked tokens approaches `target_share`.

    After a step with masked share m the factor is multiplied by exp(rate * (m - target) / target), the
    exponent limited to +-rate * 3: too much masked widens the threshold. A NaN share changes nothing.
    """

    def __init__(self, spec: ScheduleSpec) -> None:
        self.spec = spec
        self.factor = 1.0

    def update(self, masked_share: float) -> float:
        """Take the masked share of the finished step, in [0, 1]; returns the factor for the next one."""
        if not math.isnan(masked_share):
            error = min(max((masked_share - self.spec.target_share) / self.spec.target_share, -3.0), 3.0)
            moved = self.factor * math.exp(self.spec.rate * error)
            self.factor = min(max(moved, self.spec.factor_min), self.spec.factor_max)
        return self.factor

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"factor": self.factor}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from `state_dict`."""
        self.factor = float(state["factor"])

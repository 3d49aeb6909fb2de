"""The thresholds of a trust region in force at one training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.schedules import ThresholdController, schedule_factor


@dataclass(frozen=True)
class Thresholds:
    """All in units of the divergence."""

    values: Mapping[str, float]
    """The scheduled thresholds that the selected trust region reads, by their key."""
    budget: float | None
    """The budget's size, delta_b; None without a budget."""

    @property
    def delta(self) -> float | None:
        """The token-level threshold; None where there is none."""
        return self.values.get("delta")


def thresholds_at(
    region: Coordinate, *, step: int = 0, progress: float = 0.0, controller: float = 1.0
) -> Thresholds:
    """The thresholds of a trust region in force; a relative budget follows the scheduled delta."""
    factor = schedule_factor(region.schedule, step=step, progress=progress, controller=controller)
    scheduled = [each for each in region.selected()["kind"].parameters if each.param.scheduled]
    given = {each.name: getattr(region, each.name) for each in scheduled}
    values = {name: value * factor for name, value in given.items() if value is not None}
    budget = None
    if not region.budget.is_off:
        budget = region.budget.size * schedule_factor(
            region.budget.schedule, step=step, progress=progress, controller=controller
        )
        if region.budget.relative:
            budget *= values["delta"]
    return Thresholds(values, budget)


def controller_of(region: Coordinate) -> ThresholdController:
    """A controller for the schedule with feedback, of a trust region or its budget; idle where neither has any."""
    return ThresholdController(region.schedule if region.schedule.has_feedback else region.budget.schedule)

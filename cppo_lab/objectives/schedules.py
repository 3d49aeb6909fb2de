"""Schedules: how a threshold changes over training, as a factor that starts at 1."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.parameters import Param, fail, join
from cppo_lab.objectives.rules import Rules


@dataclass(frozen=True)
class ScheduleInputs:
    """A point of training: `step` finished steps, `progress` of the run in [0, 1]."""

    step: int
    progress: float

    def share(self, steps: int | None) -> float:
        """The share done of `steps` steps, of the whole run for None; in [0, 1]."""
        return min(max(self.progress if steps is None else self.step / steps, 0.0), 1.0)


Final = Annotated[float, Param(default=1.0, above=0, about="The factor at the end.")]
Steps = Annotated[int | None, Param(default=None, at_least=1, about="Its length; null: the whole run.")]

schedules = Rules("schedule.kind")


@schedules.register("constant")
def constant(at: ScheduleInputs) -> float:
    """1."""
    return 1.0


@schedules.register("linear")
def linear(at: ScheduleInputs, *, final: Final, steps: Steps) -> float:
    """Linearly from 1 to `final` over `steps`."""
    return 1 + (final - 1) * at.share(steps)


@schedules.register("cosine")
def cosine(at: ScheduleInputs, *, final: Final, steps: Steps) -> float:
    """Half a cosine from 1 to `final` over `steps`."""
    return 1 + (final - 1) * ((1 - math.cos(math.pi * at.share(steps))) / 2)


@schedules.register("piecewise")
def piecewise(
    at: ScheduleInputs,
    *,
    points: Annotated[
        tuple[tuple[int, float], ...], Param(about="[step, factor] pairs with increasing steps.")
    ] = (),
) -> float:
    """Linear between `points`, [step, factor]; constant outside them."""
    index = bisect_right([step for step, _ in points], at.step)
    if index == 0:
        return points[0][1]
    if index == len(points):
        return points[-1][1]
    (left, low), (right, high) = points[index - 1], points[index]
    return low + (high - low) * (at.step - left) / (right - left)


@schedules.register("target_share", feedback=True)
def target_share_controller(
    factor: float,
    masked_share: float,
    *,
    target_share: Annotated[
        float, Param(above=0, at_most=1, always_shown=True, about="The share of masked tokens to reach.")
    ] = 0.01,
    rate: Annotated[
        float, Param(above=0, about="Gain of the controller on the logarithm of the factor.")
    ] = 0.1,
    factor_min: Annotated[float, Param(above=0, at_most=1, about="The least factor.")] = 0.1,
    factor_max: Annotated[float, Param(at_least=1, about="The largest factor.")] = 10.0,
) -> float:
    """A controller that moves the factor until the share of masked tokens is `target_share`.

    factor * exp(rate * (m - target) / target), the exponent limited to +-rate * 3.

    Too many masked tokens widen the threshold. A NaN share changes nothing.
    """
    if math.isnan(masked_share):
        return factor
    error = min(max((masked_share - target_share) / target_share, -3.0), 3.0)
    return min(max(factor * math.exp(rate * error), factor_min), factor_max)


class ScheduleSpec(Coordinate, path="schedule"):
    """How a threshold changes over training, as a factor that starts at 1."""

    kind: Annotated[str, schedules] = "constant"

    @property
    def has_feedback(self) -> bool:
        """Whether the factor is updated after each step from the share of masked tokens."""
        return self.selected()["kind"].feedback

    def check(self, path: str) -> None:
        """Raise ValueError for points that are no schedule."""
        key = join(path, "points")
        if not self.points and self.reads("points"):
            raise fail(key, [], f"{self.kind} needs at least one [step, factor] pair")
        for step, factor in self.points:
            if step < 0 or not 0 < factor < math.inf:
                raise fail(key, [step, factor], "steps must be at least 0 and factors greater than 0")
        if any(later <= earlier for (earlier, _), (later, _) in pairwise(self.points)):
            raise fail(key, self.points, "steps must increase")


def schedule_factor(spec: ScheduleSpec, *, step: int, progress: float, controller: float = 1.0) -> float:
    """The factor on a threshold after `step` finished training steps, `progress` of the run in [0, 1].

    `controller` is the factor of a schedule with feedback, from its `ThresholdController`.
    """
    if spec.has_feedback:
        return controller
    factor: float = spec.rule()(ScheduleInputs(step, progress))
    return factor


class ThresholdController:
    """Keeps the factor of a schedule with feedback; under any other schedule it stays 1."""

    def __init__(self, spec: ScheduleSpec) -> None:
        self.spec = spec
        self.factor = 1.0

    def update(self, masked_share: float) -> float:
        """Take the masked share of the finished step, in [0, 1]; returns the factor for the next one."""
        self.factor = self.spec.rule()(self.factor, masked_share)
        return self.factor

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"factor": self.factor}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from `state_dict`."""
        self.factor = float(state["factor"])

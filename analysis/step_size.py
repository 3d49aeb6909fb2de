"""How much is a smaller step: curves over learning rate and thresholds, good ranges, and the controls, of one study."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cppo_lab.analysis.contrasts import Contrast, adjusted, estimate
from cppo_lab.analysis.controls import Control, find_controls
from cppo_lab.analysis.good_range import Sensitivity, range_contrast, sensitivity
from cppo_lab.analysis.grids import RATE, grids, tuning_axes
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.tuned_controls import find_tuned_controls, has_tuned_runs


@dataclass(frozen=True)
class RangeContrast:
    """The good range of one method less that of plain policy gradient along one axis.

    at_least: the method's range reaches an end of what was tried, so the difference may be larger; at_most: likewise
    the baseline's, so it may be smaller.
    """

    axis: str
    panel: str
    contrast: Contrast
    at_least: bool
    at_most: bool


@dataclass(frozen=True)
class StepSize:
    """The curves by axis, panel and method, the contrasts of their ranges, and every method's controls.

    plain: final accuracy of plain policy gradient by axis and panel, where the axis does not concern it. is_tuned: the
    methods run at points that were tuned on other seeds.
    """

    curves: tuple[Sensitivity, ...]
    ranges: tuple[RangeContrast, ...]
    controls: tuple[Control, ...]
    plain: Mapping[tuple[str, str], Estimate] = field(default_factory=dict)
    is_tuned: bool = False

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes with curves."""
        return tuple(dict.fromkeys(curve.grid.axes[0] for curve in self.curves))

    def along(self, axis: str) -> tuple[Sensitivity, ...]:
        """The curves along one axis."""
        return tuple(curve for curve in self.curves if curve.grid.axes == (axis,))


def step_size(
    table: RunTable, no_rule: Collection[str], names: Mapping[str, str] | None = None
) -> StepSize | None:
    """Everything that a study says about the size of the step; None where no setting of it was varied.

    no_rule: the methods that are plain policy gradient. names: the algorithm of each run, see `grids`.
    """
    is_tuned = has_tuned_runs(table)
    # Beside a tuned rate, others are there for the controls: they are no curve.
    axes = [axis for axis in tuning_axes(table.runs) if not (is_tuned and axis == RATE)]
    along = [(axis, grid) for axis in axes for grid in grids(table, (axis,), names)]
    curves = [curve for _, grid in along if (curve := sensitivity(grid)) is not None]
    plain = {
        (axis, grid.panel): seen
        for axis, grid in along
        if grid.method in no_rule and not grid.axes
        if (seen := estimate(grid.values("final")[:, 0])) is not None
    }
    controls = (
        find_tuned_controls(table, no_rule, names)
        if is_tuned
        else find_controls(grids(table, names=names), no_rule)
    )
    if not curves and not controls:
        return None
    return StepSize(tuple(curves), tuple(_ranges(curves, no_rule)), tuple(controls), plain, is_tuned)


def _ranges(curves: Sequence[Sensitivity], no_rule: Collection[str]) -> list[RangeContrast]:
    """Every range against that of plain policy gradient, adjusted for all of its panel (Holm)."""
    found: list[RangeContrast] = []
    for place in dict.fromkeys((curve.grid.axes[0], curve.grid.panel) for curve in curves):
        here = [curve for curve in curves if (curve.grid.axes[0], curve.grid.panel) == place]
        baseline = next((curve for curve in here if curve.grid.method in no_rule), None)
        others = [curve for curve in here if curve is not baseline] if baseline else []
        tested = adjusted([range_contrast(curve.grid, baseline.grid) for curve in others]) if baseline else ()
        found += [
            RangeContrast(*place, each, curve.good.is_censored, bool(baseline and baseline.good.is_censored))
            for curve, each in zip(others, tested, strict=True)
        ]
    return found

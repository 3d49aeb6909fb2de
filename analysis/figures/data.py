"""What a figure is drawn from, and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cppo_lab.analysis.figures.curves import Curves, curves_of
from cppo_lab.analysis.figures.looks import Look, looks_of
from cppo_lab.analysis.figures.registry import CannotDraw, Drawing, ReportFigure
from cppo_lab.analysis.figures.style import house_style
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import ACCURACY
from cppo_lab.analysis.spent import AXES, DEFAULT_AXIS, SpentAxis, with_spent
from cppo_lab.analysis.summary import Summary

PROFILES = "profiles"
NO_PROFILES = "no run recorded profiles by position (profiles.jsonl), or none has been evaluated yet"


@dataclass(frozen=True)
class FigureData:
    """A study with its results, and the panel to draw; None for a figure of several panels.

    chosen: the panels to draw where they are not all of the study's. axis: what a figure that can be drawn over several
    axes has as its horizontal one.
    """

    study: Study
    summary: Summary
    panel: str | None = None
    axis: SpentAxis = AXES[DEFAULT_AXIS]
    chosen: tuple[str, ...] | None = None

    @property
    def panels(self) -> tuple[str, ...]:
        """The panels that figures are drawn of, also where this is the data of one of them."""
        return self.study.grouping.panels if self.chosen is None else self.chosen

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups to draw."""
        wanted = self.panels if self.panel is None else (self.panel,)
        return tuple(group for group in self.study.grouping.groups if group.panel in wanted)

    @cached_property
    def looks(self) -> dict[str, Look]:
        """The look of every method of the study."""
        return looks_of(self.study.grouping.methods)

    @cached_property
    def last_step(self) -> float:
        """Where the axis of steps ends."""
        return float(self.study.metrics["step"].max())

    @cached_property
    def top(self) -> float:
        """Where an axis of held-out accuracies ends."""
        if ACCURACY not in self.study.metrics:
            return 1.0
        return min(1.0, max(0.05, 1.12 * float(self.study.metrics[ACCURACY].max())))

    def of_panel(self, panel: str) -> FigureData:
        """The same data for one panel."""
        return replace(self, panel=panel)

    def of_panels(self, panels: Sequence[str]) -> FigureData:
        """The same data for some of the panels, and their results."""
        return replace(self, chosen=tuple(panels), summary=self.summary.of_panels(panels))

    def over(self, axis: SpentAxis) -> FigureData:
        """The same data over another horizontal axis."""
        return replace(self, study=with_spent(self.study, axis), axis=axis)

    def spent(self, group: Group) -> Curves | None:
        """What the runs of a group had spent by each step, on the axis in use."""
        known = self.axis.metric in self.study.metrics
        study = self.study if known else with_spent(self.study, self.axis)
        return curves_of(study, group, self.axis.metric)

    def curves(self, group: Group, metric: str, *, from_step: int = 1) -> Curves | None:
        """A metric of a group over steps; None when none of its runs recorded it."""
        return curves_of(self.study, group, metric, from_step=from_step)

    def recorded(self, need: str) -> bool:
        """Whether a run of these groups recorded a metric, or profiles by position."""
        if need == PROFILES:
            members = self.study.runs.index[self.study.runs["group"].isin([g.label for g in self.groups])]
            return bool(self.study.profiles["run_id"].isin(members).any())
        return any(self.curves(group, need, from_step=0) is not None for group in self.groups)


def draw_figure(figure: ReportFigure, data: FigureData) -> Drawing:
    """Draw it in the house style. Raises CannotDraw where the runs lack what it needs."""
    lacking = [need for need in figure.needs if not data.recorded(need)]
    if lacking == [PROFILES]:
        raise CannotDraw(NO_PROFILES)
    if lacking:
        raise CannotDraw(f"no run recorded {' or '.join(lacking)}")
    with house_style():
        drawn = figure.draw(data)
    return drawn if isinstance(drawn, Drawing) else Drawing(drawn)

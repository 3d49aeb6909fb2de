"""What a figure is drawn from, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cppo_lab.analysis.figures.curves import Curves, curves_of
from cppo_lab.analysis.figures.looks import Look, looks_of
from cppo_lab.analysis.figures.registry import CannotDraw, Drawing, ReportFigure
from cppo_lab.analysis.figures.style import house_style
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import ACCURACY
from cppo_lab.analysis.summary import Summary

PROFILES = "profiles"
NO_PROFILES = "no run recorded profiles by position (profiles.jsonl), or none has been evaluated yet"


@dataclass(frozen=True)
class FigureData:
    """A study with its results, and the panel to draw; None for a figure of all panels."""

    study: Study
    summary: Summary
    panel: str | None = None

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups to draw."""
        grouping = self.study.grouping
        return grouping.groups if self.panel is None else grouping.in_panel(self.panel)

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
        return FigureData(self.study, self.summary, panel)

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

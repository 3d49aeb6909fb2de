"""The prefix budget at work: its size in force, what it masks, and how much of it responses use."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.accuracy import MOST_BANDS, draw_curves
from cppo_lab.analysis.figures.curves import curves_of
from cppo_lab.analysis.figures.stability import MOST_POINTS
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study

EFFECTIVE = "budget/effective"
QUANTITIES = (
    (EFFECTIVE, "Budget in force", False),
    ("mask/budget_share", "Masked by the budget alone", True),
    ("budget/pressure_p90", "Budget used (90th percentile)", False),
)


def with_budget(study: Study, panel: str) -> list[Group]:
    """Methods of `panel` that recorded a prefix budget."""
    groups = study.grouping.in_panel(panel)
    return [group for group in groups if curves_of(study, group, EFFECTIVE, from_step=1) is not None]


def budget_figure(study: Study, panel: str) -> Figure | None:
    """Effective budget, its share of the masking and its use against steps; None where no method has one."""
    groups = with_budget(study, panel)
    if not groups:
        return None
    looks = style.looks_of(study.grouping.methods)
    last = float(study.metrics["step"].max())
    with style.house_style():
        figure = style.sheet(10.2, 3.1)
        for place, (key, title, percent) in enumerate(QUANTITIES):
            axes = figure.add_subplot(1, 3, place + 1)
            high = 0.0
            for group in groups:
                curves = curves_of(study, group, key, from_step=1)
                if curves is None:
                    continue
                curves = curves.binned(MOST_POINTS)
                draw_curves(axes, curves, looks[group.method], markers=False, band=len(groups) <= MOST_BANDS)
                high = max(high, float(curves.values[curves.values == curves.values].max()))
            axes.set_title(title)
            axes.set_xlabel("training step")
            style.step_axis(axes, last)
            if percent:
                style.percent_axis(axes, 0.0, min(1.0, max(0.01, 1.12 * high)))
            else:
                axes.set_ylim(0.0, 1.15 * high if high > 0 else 1.0)
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        style.name_methods(figure, style.line_handles([group.method for group in groups], looks))
        return figure

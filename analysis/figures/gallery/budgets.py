"""The prefix budget: its size, what it masks, and how much of it responses use."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from cppo_lab.analysis.figures import CannotDraw, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.lines import MOST_BANDS, MOST_POINTS, draw_curves

EFFECTIVE = "budget/effective"
QUANTITIES = (
    (EFFECTIVE, "Effective budget", False),
    ("mask/budget_share", "Masked by the budget alone", True),
    ("budget/pressure_p90", "Budget used (90th percentile)", False),
)


@figure(
    "budgets",
    title="The prefix budget",
    section="mechanisms",
    caption="The effective budget δ_b, averaged over responses; the share of masked tokens that the budget alone "
    "masks (undefined at a step that masks nothing); and how much of the budget responses use by their "
    "end, S_T / W_T. Lines are means over seeds; {band} ({seeds}).",
    about="the effective prefix budget, what it alone masks, and how much of it is used",
    paper="Figure 7 of the CPPO paper",
    per_panel=True,
    place=3,
)
def draw(data: FigureData) -> Figure:
    """Three axes over training, for the methods with a budget."""
    groups = [group for group in data.groups if data.curves(group, EFFECTIVE) is not None]
    if not groups:
        raise CannotDraw("no method here has a prefix budget")
    sheet, grid = style.small_multiples(3, 3, 3.4, 3.1)
    for axes, (key, title, is_share) in zip(grid, QUANTITIES, strict=True):
        high = 0.0
        for group in groups:
            curves = data.curves(group, key)
            if curves is None:
                continue
            curves = curves.binned(MOST_POINTS)
            draw_curves(axes, curves, data.looks[group.method], markers=False, band=len(groups) <= MOST_BANDS)
            high = max(high, float(np.nanmax(curves.values)))
        axes.set_title(title)
        axes.set_xlabel("training step")
        style.step_axis(axes, data.last_step)
        if is_share:
            style.percent_axis(axes, 0.0, min(1.0, max(0.01, 1.12 * high)))
        else:
            axes.set_ylim(0.0, 1.15 * high if high > 0 else 1.0)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    style.name_methods(sheet, style.line_handles([group.method for group in groups], data.looks))
    return sheet

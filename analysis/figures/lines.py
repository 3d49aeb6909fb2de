"""Curves of methods in axes, and axes for the panels of a study."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.curves import Curves
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.looks import CROSS, SOFT_INK, Look
from cppo_lab.analysis.run_table import ACCURACY

# More overlapping bands than this hide the lines.
MOST_BANDS = 6
# More points than this make a hatching of noise instead of a line in a small picture.
MOST_POINTS = 80


def axes_of_panels(data: FigureData) -> tuple[Figure, list[tuple[Axes, FigureData]]]:
    """A figure with axes for every panel that has evaluations."""
    panels = [
        panel
        for panel in map(data.of_panel, data.panels)
        if any(panel.curves(group, ACCURACY, from_step=0) is not None for group in panel.groups)
    ]
    if len(panels) == 1:
        figure, grid = style.small_multiples(1, 1, 7.6, 4.3)
    else:
        figure, grid = style.small_multiples(len(panels), 2, 5.2, 4.3 if len(panels) < 3 else 3.5)
    return figure, list(zip(grid, panels, strict=True))


def draw_curves(
    axes: Axes,
    curves: Curves,
    look: Look,
    *,
    markers: bool = True,
    median: bool = False,
    carry: bool = False,
    band: bool = True,
    along: Curves | None = None,
) -> None:
    """Thin lines of runs, band and centre line of one method, and a cross where a run failed.

    carry: centre and band count a failed run at its last value instead of dropping it. along: the horizontal place of
    every run at every step, instead of the step; centre and band are at the median of the runs.
    """
    if curves.n > 1:
        places = curves.steps if along is None else along.at(curves).values
        for x, y in zip(np.broadcast_to(places, curves.values.shape), curves.values, strict=True):
            shown = ~np.isnan(y)
            thin_line(axes, x[shown], y[shown], look)
    summed = curves.carried() if carry else curves
    limits = None if median or not band else summed.band()
    centre = summed.median() if median else summed.mean()
    places = curves.steps if along is None else along.at(curves).median()
    shown = ~np.isnan(centre)
    if limits is not None:
        low, high = limits
        axes.fill_between(
            places[shown], low[shown], high[shown], color=look.color, alpha=0.13, linewidth=0, zorder=1
        )
    options = look.line(int(shown.sum()))
    if not markers and shown.sum() > 1:
        options["marker"] = None
    axes.plot(places[shown], centre[shown], **options, zorder=4)
    for place, value in curves.ends(along):
        cross(axes, place, value)


def thin_line(axes: Axes, x: np.ndarray, y: np.ndarray, look: Look) -> None:
    """The line of one run; a single point, which makes no line, as a dot."""
    marker = "." if len(x) == 1 else None
    axes.plot(x, y, color=look.color, linewidth=0.7, alpha=0.35, marker=marker, zorder=2)


def cross(axes: Axes, x: float, y: float) -> None:
    """Where a run failed."""
    axes.plot(x, y, marker="x", color=CROSS, markersize=7.5, markeredgewidth=2.0, zorder=6)


def starting_line(axes: Axes, data: FigureData) -> float | None:
    """A dashed line at the mean accuracy of a panel's starting policies; returns it, None where it is not known."""
    labels = [group.label for group in data.groups]
    start = data.study.runs.loc[data.study.runs["group"].isin(labels), "starting_accuracy"].dropna()
    if start.empty:
        return None
    level = float(start.mean())
    axes.axhline(level, color=SOFT_INK, linewidth=1.0, linestyle=style.DASHES, zorder=3)
    return level

"""Final and best accuracy of every method with its interval, the seeds as ticks."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cppo_lab.analysis.figures import CannotDraw, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.estimates import draw_estimate, draw_ticks, rows_of_panels
from cppo_lab.analysis.figures.looks import PAPER, SOFT_INK, Look
from cppo_lab.analysis.summary import MethodResult


@figure(
    "final_and_best",
    title="Final and best accuracy",
    section="accuracy",
    caption="Final accuracy ({final}; filled, with the seeds as ticks) and best accuracy within {window} "
    "(hollow). Bars are 95% Student t intervals over seeds, clipped to 0 to 100%; a point without a bar "
    "has one seed or two. The dashed line is the mean of the starting policies. The best of several noisy "
    "evaluations overestimates the accuracy.",
    about="final and best accuracy with intervals",
    place=2,
)
def draw(data: FigureData) -> Figure:
    """One row per method and panel, highest final accuracy first."""
    ranked = {
        panel.panel: sorted(rows, key=lambda r: r.final.mean if r.final else 0.0, reverse=True)
        for panel in data.summary.panels
        if (rows := [result for result in panel.results if result.final])
    }
    if not ranked:
        raise CannotDraw("no run has finished")
    sheet, grid = rows_of_panels([len(rows) for rows in ranked.values()], 0.52)
    for axes, (panel, rows) in zip(grid, ranked.items(), strict=True):
        _panel(axes, rows, data.looks)
        style.panel_title(axes, panel)
    right = max(_right_end(result) for rows in ranked.values() for result in rows)
    axes.set_xlim(0.0, min(1.0, right + 0.03))
    axes.set_xlabel("held-out accuracy")
    sheet.legend(handles=_legend(), loc="outside lower center", ncols=4, columnspacing=1.6, handletextpad=0.5)
    return sheet


def _panel(axes: Axes, ranked: list[MethodResult], looks: dict[str, Look]) -> None:
    starts = [result.start.mean for result in ranked if result.start]
    if starts:
        axes.axvline(float(np.mean(starts)), color=SOFT_INK, linewidth=1.0, linestyle=style.DASHES, zorder=1)
    for row, result in enumerate(ranked):
        look = looks[result.group.method]
        if result.final is not None:
            draw_estimate(axes, result.final, row - 0.13, look, 0.0, 1.0)
            draw_ticks(axes, list(result.values("final")), row - 0.3, look)
            share = f"{100 * result.final.mean:.1f}%"
            diverged = f", {result.diverged} diverged" if result.diverged else ""
            style.margin_notes(axes, row - 0.05, share, f"n = {result.n}{diverged}")
        if result.best is not None:
            draw_estimate(axes, result.best, row + 0.2, look, 0.0, 1.0, filled=False)
    style.row_axis(axes, [result.group.method for result in ranked])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _right_end(result: MethodResult) -> float:
    ends = [estimate.high for estimate in (result.final, result.best) if estimate and estimate.shows_interval]
    return float(np.nanmax([*ends, *result.values("best"), *result.values("final")]))


def _legend() -> list[Line2D]:
    mark: dict[str, Any] = {"color": SOFT_INK, "marker": "o"}
    return [
        Line2D([], [], **mark, linewidth=2.4, markersize=7, markeredgecolor=PAPER, label="final, 95%"),
        Line2D(
            [], [], **mark, linewidth=1, markersize=5.5, markerfacecolor=PAPER, label="best in window, 95%"
        ),
        Line2D(
            [],
            [],
            color=SOFT_INK,
            marker="|",
            linestyle="none",
            markersize=6,
            label="final accuracy of a seed",
        ),
        style.starting_policy_handle(),
    ]

"""Final and best accuracy of every method with its interval, the seeds beside it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import MethodResult
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.summary import Findings


def final_and_best(study: Study, findings: Findings) -> Figure | None:
    """One row per method and panel, highest final accuracy first: final (filled), best in window (hollow)."""
    panels = [panel for panel in findings.panels if any(result.final for result in panel.results)]
    if not panels:
        return None
    counts = [sum(1 for result in panel.results if result.final) for panel in panels]
    looks = style.looks_of(study.grouping.methods)
    with style.house_style():
        figure = style.sheet(8.2, 0.9 + sum(0.52 * count + 0.45 for count in counts))
        grid = figure.add_gridspec(len(panels), 1, height_ratios=[count + 0.6 for count in counts])
        high = max(_right_end(result) for panel in panels for result in panel.results if result.final)
        first: Axes | None = None
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(grid[index, 0], sharex=first)
            first = first or axes
            ranked = sorted(
                (result for result in panel.results if result.final),
                key=lambda result: result.final.mean if result.final else 0.0,
                reverse=True,
            )
            _rows(axes, ranked, looks)
            style.panel_title(axes, panel.panel)
            if index == len(panels) - 1:
                axes.set_xlabel("held-out accuracy")
            else:
                axes.tick_params(labelbottom=False)
        if first is not None:
            first.set_xlim(0.0, min(1.0, high + 0.03))
        figure.legend(
            handles=_legend(), loc="outside lower center", ncols=4, columnspacing=1.6, handletextpad=0.5
        )
        return figure


def _rows(axes: Axes, ranked: list[MethodResult], looks: dict[str, style.Look]) -> None:
    starts = [result.start.mean for result in ranked if result.start]
    if starts:
        axes.axvline(
            float(np.mean(starts)), color=style.SOFT_INK, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1
        )
    for row, result in enumerate(ranked):
        look = looks[result.group.method]
        final, best = result.final, result.best
        if final is not None:
            _interval(axes, final, row - 0.13, look, filled=True)
            axes.plot(
                result.values("final"),
                np.full(result.n, row - 0.13 - 0.17),
                linestyle="none",
                marker="|",
                color=look.color,
                markersize=5,
                markeredgewidth=1.1,
                alpha=0.75,
            )
        if best is not None:
            _interval(axes, best, row + 0.2, look, filled=False)
        dead = f", {result.diverged} diverged" if result.diverged else ""
        share = f"{100 * final.mean:.1f}%" if final else ""
        style.margin_notes(axes, row - 0.05, share, f"n = {result.n}{dead}")
    axes.set_ylim(len(ranked) - 0.45, -0.6)
    axes.set_yticks(range(len(ranked)), [result.group.method for result in ranked])
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=style.INK)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))


def _right_end(result: MethodResult) -> float:
    ends = [run.best for run in result.runs]
    ends += [e.high for e in (result.final, result.best) if e is not None and e.has_interval]
    return float(np.nanmax([*ends, *result.values("final")]))


def _interval(axes: Axes, estimate: Estimate, y: float, look: style.Look, *, filled: bool) -> None:
    if estimate.has_interval:
        low, high = max(0.0, estimate.low), min(1.0, estimate.high)
        axes.plot(
            [low, high],
            [y, y],
            color=look.color,
            linewidth=2.4 if filled else 1.0,
            alpha=0.9 if estimate.n > 2 else 0.4,
            zorder=3,
        )
    axes.plot(
        estimate.mean,
        y,
        marker=look.marker,
        markersize=(1.25 if filled else 1.0) * look.size,
        color=look.color if filled else style.PAPER,
        markeredgecolor=style.PAPER if filled else look.color,
        markeredgewidth=0.8 if filled else 1.2,
        zorder=4,
    )


def _legend() -> list[Line2D]:
    ink = style.SOFT_INK
    return [
        Line2D(
            [],
            [],
            color=ink,
            marker="o",
            linewidth=2.4,
            markersize=7,
            markeredgecolor=style.PAPER,
            label="final, 95%",
        ),
        Line2D(
            [],
            [],
            color=ink,
            marker="o",
            linewidth=1,
            markersize=5.5,
            markerfacecolor=style.PAPER,
            label="best in window, 95%",
        ),
        Line2D([], [], color=ink, marker="|", linestyle="none", markersize=6, label="one seed, final"),
        Line2D([], [], color=ink, linewidth=1, linestyle=(0, (2, 2)), label="starting policy"),
    ]

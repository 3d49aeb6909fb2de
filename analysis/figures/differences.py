"""Paired differences of final accuracy to the baseline: where zero lies is what decides."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cppo_lab.analysis.contrasts import Comparison
from cppo_lab.analysis.figures import style
from cppo_lab.analysis.formatting import points
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.summary import Findings, PanelFindings

# The axis never reaches further than this, so that one method with an enormous interval hides no other.
FURTHEST = 1.0


def against_baseline(study: Study, findings: Findings) -> Figure | None:
    """One row per comparison, largest difference first; pairs as ticks, 95% interval as bar, zero as a line.

    None when no method shares a seed and starting policy with its panel's baseline.
    """
    panels = [(panel, _drawable(panel)) for panel in findings.panels]
    panels = [(panel, rows) for panel, rows in panels if rows]
    if not panels:
        return None
    looks = style.looks_of(study.grouping.methods)
    methods = {group.label: group.method for group in study.grouping.groups}
    low, high = _limits([comparison for _, rows in panels for comparison in rows])
    with style.house_style():
        figure = style.sheet(8.2, 0.75 + sum(0.42 * len(rows) + 0.5 for _, rows in panels))
        grid = figure.add_gridspec(len(panels), 1, height_ratios=[len(rows) + 0.7 for _, rows in panels])
        for index, (panel, rows) in enumerate(panels):
            axes = figure.add_subplot(grid[index, 0])
            _rows(axes, rows, looks, methods, low, high)
            style.panel_title(axes, panel.panel)
            if index == len(panels) - 1:
                base = methods.get(panel.baseline or "", panel.baseline)
                axes.set_xlabel(f"points of final accuracy above or below {base}")
            else:
                axes.tick_params(labelbottom=False)
        return figure


def _drawable(panel: PanelFindings) -> list[Comparison]:
    rows = [comparison for comparison in panel.comparisons if comparison.difference is not None]
    return sorted(rows, key=lambda c: c.difference.mean if c.difference else 0.0, reverse=True)


def _limits(comparisons: list[Comparison]) -> tuple[float, float]:
    ends = [0.0]
    for comparison in comparisons:
        ends += comparison.differences
        if comparison.difference is not None and comparison.difference.has_interval:
            ends += [comparison.difference.low, comparison.difference.high]
    low, high = max(-FURTHEST, min(ends)), min(FURTHEST, max(ends))
    air = 0.06 * max(high - low, 0.02)
    return low - air, high + air


def _rows(
    axes: Axes,
    comparisons: list[Comparison],
    looks: dict[str, style.Look],
    methods: dict[str, str],
    low: float,
    high: float,
) -> None:
    axes.axvline(0.0, color=style.INK, linewidth=1.1, zorder=2)
    for row, comparison in enumerate(comparisons):
        difference = comparison.difference
        if difference is None:
            continue
        look = looks[methods[comparison.label]]
        if difference.has_interval:
            axes.plot(
                [max(low, difference.low), min(high, difference.high)],
                [row, row],
                color=look.color,
                linewidth=2.4,
                zorder=3,
            )
        axes.plot(
            list(comparison.differences),
            np.full(comparison.pairs, row - 0.24),
            linestyle="none",
            marker="|",
            color=look.color,
            markersize=5,
            markeredgewidth=1.1,
            alpha=0.75,
        )
        axes.plot(
            difference.mean,
            row,
            marker=look.marker,
            markersize=1.25 * look.size,
            color=look.color,
            markeredgecolor=style.PAPER,
            markeredgewidth=0.8,
            zorder=4,
        )
        style.margin_notes(axes, row, points(difference.mean), comparison.verdict)
    axes.set_xlim(low, high)
    axes.set_ylim(len(comparisons) - 0.5, -0.6)
    axes.set_yticks(range(len(comparisons)), [methods[comparison.label] for comparison in comparisons])
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=style.INK)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    number = round(100 * value, 1)
    return "0" if number == 0 else f"{number:+g}".replace("-", "−")

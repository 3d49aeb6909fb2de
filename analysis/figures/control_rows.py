"""Rows of methods against plain policy gradient: at one learning rate, each at its best, at the same KL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cppo_lab.analysis.claims import MARGIN
from cppo_lab.analysis.controls import AT_BEST, FEWER_EPOCHS, SAME_KL, Control
from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.estimates import draw_ticks, rows_of_panels
from cppo_lab.analysis.figures.looks import INK, PAPER, RULE, SOFT_INK, Look
from cppo_lab.analysis.formatting import points
from cppo_lab.analysis.grids import value_text
from cppo_lab.analysis.grouping import distinct_panels
from cppo_lab.analysis.statistics import Estimate

AT_ONE = "at_one"
MARKERS = {AT_ONE: "o", AT_BEST: "D", SAME_KL: "s", FEWER_EPOCHS: "^"}
_WORDS = {
    AT_BEST: "each at its best",
    SAME_KL: "at the same KL",
    FEWER_EPOCHS: "against fewer epochs",
}
FURTHEST = 0.6


def control_figure(controls: Sequence[Control], looks: Mapping[str, Look]) -> Figure:
    """One row per method, one dot with its interval for each control; methods credited with most come first."""
    panels = list(dict.fromkeys(control.panel for control in controls))
    ranked = {
        panel: sorted((c for c in controls if c.panel == panel), key=_credit, reverse=True)
        for panel in panels
    }
    kinds = [kind for kind in MARKERS if any(kind in _estimates(control) for control in controls)]
    figure, grid = rows_of_panels([len(rows) for rows in ranked.values()], 0.25 + 0.17 * len(kinds))
    ends = [
        end
        for control in controls
        for seen in _estimates(control).values()
        for end in ((seen.low, seen.high) if seen.shows_interval else (seen.mean, *seen.values))
    ]
    low, high = max(-FURTHEST, min([*ends, -MARGIN])), min(FURTHEST, max([*ends, MARGIN]))
    air = 0.05 * (high - low)
    titles = distinct_panels(panels)
    for axes, (panel, rows) in zip(grid, ranked.items(), strict=True):
        _panel(axes, rows, looks, kinds, (low - air, high + air))
        style.panel_title(axes, titles[panel])
    axes.set_xlabel("final accuracy less plain policy gradient (points)")
    figure.legend(
        handles=_legend(kinds, controls),
        loc="outside upper left",
        ncols=4,
        columnspacing=1.6,
        handletextpad=0.5,
    )
    return figure


def _panel(
    axes: Axes,
    controls: Sequence[Control],
    looks: Mapping[str, Look],
    kinds: Sequence[str],
    limits: tuple[float, float],
) -> None:
    axes.axvspan(-MARGIN, MARGIN, color=RULE, alpha=0.4, linewidth=0, zorder=0)
    axes.axvline(0.0, color=INK, linewidth=1.1, zorder=2)
    for row, control in enumerate(controls):
        if row:
            axes.axhline(row - 0.5, color=RULE, linewidth=0.6, zorder=0)
        found = _estimates(control)
        for place, kind in enumerate(kinds):
            if kind in found:
                height = row + (place - (len(kinds) - 1) / 2) * 0.62 / max(1, len(kinds) - 1)
                _dot(axes, found[kind], height, looks[control.method], kind, limits)
        credited = control.credited
        if credited is not None:
            style.margin_notes(axes, row, points(credited.mean), f"credited, {control.verdict}")
    axes.set_xlim(*limits)
    style.row_axis(axes, [control.method for control in controls])
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: points(value).removesuffix(".0").replace("±", ""))
    )


def _dot(
    axes: Axes, seen: Estimate, height: float, look: Look, kind: str, limits: tuple[float, float]
) -> None:
    hollow = kind == AT_ONE
    if seen.shows_interval:
        ends = [max(limits[0], seen.low), min(limits[1], seen.high)]
        axes.plot(
            ends, [height, height], color=look.color, linewidth=1.0 if hollow else 2.2, alpha=0.9, zorder=3
        )
    else:
        draw_ticks(axes, [value for value in seen.values if limits[0] <= value <= limits[1]], height, look)
    if limits[0] <= seen.mean <= limits[1]:
        axes.plot(
            seen.mean,
            height,
            marker=MARKERS[kind],
            markersize=5.5 if hollow else 6.5,
            color=PAPER if hollow else look.color,
            markeredgecolor=look.color if hollow else PAPER,
            markeredgewidth=1.2 if hollow else 0.8,
            zorder=4,
        )


def _estimates(control: Control) -> dict[str, Estimate]:
    found = {AT_ONE: control.at_one, **control.controls}
    return {
        kind: replace(each.estimate, values=() if each.estimate.shows_interval else tuple(each.values))
        for kind, each in found.items()
        if each is not None and each.estimate is not None
    }


def _credit(control: Control) -> float:
    return control.credited.mean if control.credited else -math.inf


def _legend(kinds: Sequence[str], controls: Sequence[Control]) -> list[Line2D]:
    rates = {control.rate for control in controls if math.isfinite(control.rate)}
    at_one = f"both at lr={value_text(rates.pop())}" if len(rates) == 1 else "both at the largest rate tried"
    handles = []
    for kind in kinds:
        look: dict[str, Any] = {"color": SOFT_INK, "marker": MARKERS[kind], "markersize": 6}
        if kind == AT_ONE:
            look |= {"markerfacecolor": PAPER, "linewidth": 1.0}
        else:
            look |= {"markeredgecolor": PAPER, "linewidth": 2.2}
        handles.append(Line2D([], [], **look, label=_WORDS.get(kind, at_one)))
    return handles

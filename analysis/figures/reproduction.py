"""The figure of one item of docs/reproductions.md, drawn from its result file alone.

Curves (or what else the item is about) on the left, one axes per panel; the contrasts of its claims on the right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.claims import MARGIN, Outcome
from analysis.figures import style
from analysis.result_files import ResultFile, Row, read_series

# Which series of a result file answers the question of a figure of the report; accuracy for all others.
SERIES = {"position_profiles": "deviation", "budgets": "budget"}
_LABELS = {
    "accuracy": ("training step", "held-out accuracy"),
    "deviation": ("position in response", "mean divergence"),
    "budget": ("training step", "budget in force"),
}
MOST_CURVES = 4
_VERDICT_COLOR = {"agrees": "#009e73", "does not agree": style.CROSS, "not resolved": style.SOFT_INK}


def reproduction(
    results: ResultFile, outcomes: Sequence[Outcome], figure_of_report: str | None
) -> Figure | None:
    """The figure of an item; None where nothing was measured."""
    panels = [panel for panel in results.panels if results.methods(panel)]
    if not panels:
        return None
    column = SERIES.get(figure_of_report or "", "accuracy")
    shown = panels[:MOST_CURVES] if len(results.methods(panels[0])) <= 12 else []
    contrasts = [
        outcome for outcome in outcomes if outcome.claim.is_of_accuracy and outcome.estimate is not None
    ]
    return _figure(results, shown, column, contrasts, len(panels) > 1)


def headlines(results: ResultFile, panels: Sequence[str], outcomes: Sequence[Outcome]) -> Figure | None:
    """The curves of some panels of Table 1 and the contrasts of every headline claim; None where none was measured."""
    contrasts = [outcome for outcome in outcomes if outcome.estimate is not None]
    return _figure(results, panels, "accuracy", contrasts, True) if contrasts else None


def _figure(
    results: ResultFile, panels: Sequence[str], column: str, contrasts: Sequence[Outcome], with_panel: bool
) -> Figure | None:
    widths = [1.0] * len(panels) + ([1.35] if contrasts else [])
    if not widths:
        return None
    methods = list(dict.fromkeys(row["method"] for row in results.rows))
    looks = style.looks_of(methods)
    with style.house_style():
        # A name with its panel takes two lines.
        height = max(3.3, 1.2 + (0.36 if with_panel else 0.3) * len(contrasts))
        figure = style.sheet(min(16.0, 3.4 * sum(widths) + 0.6), height)
        grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
        for place, panel in enumerate(panels):
            _curves(figure.add_subplot(grid[0, place]), results, panel, column, looks)
        if contrasts:
            _contrasts(figure.add_subplot(grid[0, len(panels)]), contrasts, with_panel)
        style.name_methods(figure, style.line_handles(methods, looks), columns=5)
        return figure


def _curves(axes: Axes, results: ResultFile, panel: str, column: str, looks: dict[str, style.Look]) -> None:
    last = 0.0
    for method in results.methods(panel):
        look = looks[method]
        x, y = mean_series(results.of(panel, method), column)
        if len(x):
            last = max(last, float(x[-1]))
            axes.plot(
                x,
                y,
                color=look.color,
                linestyle=look.linestyle,
                linewidth=1.9,
                marker=look.marker,
                markevery=max(1, len(x) // 5),
                markersize=4.5,
                markeredgecolor=style.PAPER,
                markeredgewidth=0.6,
            )
    across, up = _LABELS[column]
    style.panel_title(axes, panel)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if column == "accuracy":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
    if column != "deviation":
        style.step_axis(axes, last)
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))


def mean_series(rows: Sequence[Row], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Places and means over the runs that have a value there; a run that ended early has none at later places."""
    found: dict[float, list[float]] = {}
    for row in rows:
        for at, value in zip(*read_series(row.get(column, "")), strict=True):
            found.setdefault(float(at), []).append(float(value))
    places = sorted(found)
    return np.array(places), np.array([np.mean(found[at]) for at in places])


def _contrasts(axes: Axes, contrasts: Sequence[Outcome], with_panel: bool) -> None:
    axes.axvspan(-100 * MARGIN, 100 * MARGIN, color=style.RULE, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(0.0, color=style.SOFT_INK, linewidth=1.0, zorder=1)
    ends = [5.0, *(abs(100 * o.estimate.mean) for o in contrasts if o.estimate is not None)]
    for row, outcome in enumerate(contrasts):
        seen = outcome.estimate
        assert seen is not None, "outcomes without an estimate are not drawn"
        color = _VERDICT_COLOR[outcome.verdict]
        if seen.has_interval:
            axes.plot([100 * seen.low, 100 * seen.high], [row, row], color=color, linewidth=2.4, zorder=3)
            ends += [abs(100 * seen.low), abs(100 * seen.high)]
        axes.plot(
            100 * seen.mean, row, "o", color=color, markersize=6.5, markeredgecolor=style.PAPER, zorder=4
        )
        style.margin_notes(axes, row, f"{100 * seen.mean:+.1f}".replace("-", "−"), f"n = {seen.n}")
    limit = min(60.0, 1.08 * max(ends))
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(contrasts) - 0.4, -0.6)
    axes.set_yticks(range(len(contrasts)), [_name(outcome, with_panel) for outcome in contrasts])
    axes.tick_params(axis="y", labelsize=7.5, labelcolor=style.INK)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("difference of final accuracy, points (95%)")


def _name(outcome: Outcome, with_panel: bool) -> str:
    claim = outcome.claim
    name = f"{claim.treatment} − {claim.baseline}" if claim.baseline else claim.treatment
    if claim.score == "first_minus_second_half":
        name = "first half of seeds\n− second half"
    return f"{name}\n{outcome.panel}" if with_panel and outcome.panel else name


def shown_in_words(figure_of_report: str | None) -> str:
    """What the figure of an item shows."""
    _, up = _LABELS[SERIES.get(figure_of_report or "", "accuracy")]
    return f"{up} (means over seeds)"


def is_measured(results: ResultFile) -> bool:
    """Whether any run of the item has a final accuracy."""
    return any(row["final"] and math.isfinite(float(row["final"])) for row in results.rows)

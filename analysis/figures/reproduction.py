"""The figure of one item of docs/reproductions.md, drawn from its result file alone.

Curves (or what else the item is about) on the left, one axes per panel; the contrasts of its claims on the right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.claims import MARGIN, Outcome, difference
from analysis.figures import style
from analysis.numbers import MINUS
from analysis.result_files import ResultFile, Row, read_series
from analysis.stats import Estimate

# Which series of a result file answers the question of a figure of the report; accuracy for all others.
SERIES = {"position_profiles": "deviation", "budgets": "budget"}
_LABELS = {
    "accuracy": ("training step", "held-out accuracy"),
    "deviation": ("position in response", "mean divergence"),
    "budget": ("training step", "budget in force"),
}
MOST_METHODS = 12
LONGEST_NAME = 40
MOST_POINTS = 30.0
"""Where the scale of differences ends, so that three points can be seen beside forty; arrows stand for the rest."""
_VERDICT_COLOR = {"agrees": "#009e73", "does not agree": style.CROSS, "not resolved": style.SOFT_INK}


@dataclass(frozen=True)
class Line:
    """One row of the contrasts; a heading has no estimate."""

    name: str
    is_contrast: bool
    seen: Estimate | None = None
    color: str = style.SOFT_INK
    is_claimed: bool = True


def reproduction(
    results: ResultFile,
    outcomes: Sequence[Outcome],
    figure_of_report: str | None,
    baseline: str | None = None,
) -> Figure | None:
    """The figure of an item; None where nothing was measured. With one panel, methods that no claim sets against
    `baseline` are set against it too.
    """
    panels = [panel for panel in results.panels if results.methods(panel)]
    if not panels:
        return None
    column = SERIES.get(figure_of_report or "", "accuracy")
    shown = panels if len(results.methods(panels[0])) <= MOST_METHODS else []
    contrasts = [
        outcome for outcome in outcomes if outcome.claim.is_of_accuracy and outcome.estimate is not None
    ]
    others = _unclaimed(results, panels[0], baseline, contrasts) if baseline and len(panels) == 1 else []
    return _figure(results, shown, column, [*contrast_rows(contrasts), *others])


def headlines(results: ResultFile, panels: Sequence[str], outcomes: Sequence[Outcome]) -> Figure | None:
    """The curves of some panels of Table 1 and the contrasts of every headline claim; None where none was measured."""
    contrasts = [outcome for outcome in outcomes if outcome.estimate is not None]
    return _figure(results, panels, "accuracy", contrast_rows(contrasts)) if contrasts else None


def _figure(results: ResultFile, panels: Sequence[str], column: str, rows: Sequence[Line]) -> Figure | None:
    if not panels and not rows:
        return None
    # So that axes of curves are about as high as wide, whatever the number of contrasts beside them.
    height = max(3.3, 1.2 + 0.25 * len(rows))
    down = max(1, min(len(panels), round(height / 3.3)), math.ceil(len(panels) / 4))
    across = math.ceil(len(panels) / down)
    height = max(height, 2.7 * down)
    widths = [1.0] * across + ([1.35] if rows else [])
    methods = list(dict.fromkeys(row["method"] for row in results.rows))
    looks = style.looks_of(methods)
    with style.house_style():
        figure = style.sheet(min(16.0, 3.4 * sum(widths) + 0.6), height)
        grid = figure.add_gridspec(down, len(widths), width_ratios=widths)
        first: Axes | None = None
        for place, panel in enumerate(panels):
            axes = figure.add_subplot(grid[place // across, place % across], sharey=first)
            _curves(axes, results, panel, column, looks)
            first = first or axes
        if first is not None:
            # Last, since it ends the scaling to what is drawn.
            first.set_ylim(bottom=0.0)
        if rows:
            _contrasts(figure.add_subplot(grid[:, across]), rows)
        style.name_methods(figure, style.line_handles(methods, looks), columns=5)
        return figure


def contrast_rows(contrasts: Sequence[Outcome]) -> list[Line]:
    """The rows from top to bottom: a contrast that was measured in panels has a heading, and a row for each."""
    names = [_name(outcome.claim.treatment, outcome.claim.baseline) for outcome in contrasts]
    rows: list[Line] = []
    for name in dict.fromkeys(names):
        same = [outcome for outcome, its in zip(contrasts, names, strict=True) if its == name]
        in_panels = any(outcome.panel for outcome in same)
        rows += [Line(name, True)] if in_panels else []
        rows += [
            Line(
                outcome.panel if in_panels else name,
                not in_panels,
                outcome.estimate,
                _VERDICT_COLOR[outcome.verdict],
            )
            for outcome in same
        ]
    return rows


def _unclaimed(results: ResultFile, panel: str, baseline: str, contrasts: Sequence[Outcome]) -> list[Line]:
    """The methods that no claim sets against `baseline`, set against it."""
    claimed = [{outcome.claim.treatment, outcome.claim.baseline} for outcome in contrasts]
    found = {
        method: difference(results, panel, method, baseline)
        for method in results.methods(panel)
        if method != baseline and {method, baseline} not in claimed
    }
    seen = {method: estimate for method, estimate in found.items() if estimate}
    if len(seen) == 1:
        return [Line(_name(method, baseline), True, each, is_claimed=False) for method, each in seen.items()]
    rows = [Line(method, False, each, is_claimed=False) for method, each in seen.items()]
    return [Line(f"less {baseline}", True, is_claimed=False), *rows] if rows else []


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
    style.panel_title(axes, panel, 26)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
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


def _contrasts(axes: Axes, rows: Sequence[Line]) -> None:
    axes.axvspan(-100 * MARGIN, 100 * MARGIN, color=style.RULE, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(0.0, color=style.SOFT_INK, linewidth=1.0, zorder=1)
    ends = [5.0]
    for row, line in enumerate(rows):
        seen = line.seen
        if seen is None:
            continue
        if seen.has_interval:
            axes.plot(
                [100 * seen.low, 100 * seen.high],
                [row, row],
                color=line.color,
                linewidth=2.4 if line.is_claimed else 1.4,
                zorder=3,
            )
            ends += [abs(100 * seen.low), abs(100 * seen.high)]
        ends.append(abs(100 * seen.mean))
        style.margin_notes(axes, row, f"{100 * seen.mean:+.1f}".replace("-", MINUS), f"n = {seen.n}")
    limit = min(MOST_POINTS, 1.08 * max(ends))
    axes.set_xlim(-limit, limit)
    for row, line in enumerate(rows):
        _mark(axes, row, line, limit)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [line.name for line in rows])
    axes.tick_params(axis="y", labelsize=7.5, labelcolor=style.INK)
    for label, line in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if line.is_contrast and line.is_claimed else "normal")
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("difference of final accuracy, points (95%)")


def _mark(axes: Axes, row: int, line: Line, limit: float) -> None:
    """The dot of an estimate, and an arrow at the edge of the scale where it or its interval goes on beyond it."""
    if line.seen is None:
        return
    mean = 100 * line.seen.mean
    low, high = (100 * line.seen.low, 100 * line.seen.high) if line.seen.has_interval else (mean, mean)
    for edge, marker, is_beyond in ((-limit, "<", low < -limit), (limit, ">", high > limit)):
        if is_beyond:
            axes.plot(0.97 * edge, row, marker, color=line.color, markersize=6.0, zorder=4)
    if abs(mean) <= limit:
        axes.plot(
            mean,
            row,
            "o",
            color=line.color if line.is_claimed else style.PAPER,
            markersize=6.5,
            markeredgecolor=style.PAPER if line.is_claimed else line.color,
            zorder=4,
        )


def _name(treatment: str, baseline: str | None) -> str:
    """A contrast on one line, or on two where it is long."""
    if not baseline:
        return treatment
    break_ = "\n" if len(treatment) + len(baseline) > LONGEST_NAME else " "
    return f"{treatment}{break_}{MINUS} {baseline}"


def shown_in_words(figure_of_report: str | None) -> str:
    """What the figure of an item shows."""
    _, up = _LABELS[SERIES.get(figure_of_report or "", "accuracy")]
    return f"{up} (means over seeds)"


def is_measured(results: ResultFile) -> bool:
    """Whether any run of the item has a final accuracy."""
    return any(row["final"] and math.isfinite(float(row["final"])) for row in results.rows)

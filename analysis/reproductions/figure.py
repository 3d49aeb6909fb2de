"""The figure of one item of docs/reproductions.md, drawn from its result file alone.

Curves, one axes per panel, and the contrasts of its claims: beside the curves of a single panel, below those of
several, so that the figure is never wider than a page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cppo_lab.analysis.claim_tests import FAILS, HOLDS, INCONCLUSIVE, ClaimTest
from cppo_lab.analysis.claims import MARGIN
from cppo_lab.analysis.contrasts import difference
from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.looks import looks_of
from cppo_lab.analysis.formatting import MINUS, points, signed
from cppo_lab.analysis.run_table import Curve, Run, RunTable
from cppo_lab.analysis.statistics import Estimate

# The curve that answers the question of a figure of the report; accuracy for all others.
SERIES = {"position_profiles": "deviation", "budgets": "budget"}
_LABELS = {
    "accuracy": ("training step", "held-out accuracy"),
    "deviation": ("position in response", "mean divergence"),
    "budget": ("training step", "budget in force"),
}
MOST_METHODS = 12
MOST_ACROSS = 3
WIDTH = 10.5
"""Inches; wider figures are scaled down on the page."""
LONGEST_NAME = 40
MOST_POINTS = 30.0
"""The end of the scale of differences, which keeps three points visible beside forty; arrows stand for the rest."""
_VERDICT_COLOR = {HOLDS: "#009e73", FAILS: style.CROSS, INCONCLUSIVE: style.SOFT_INK}


@dataclass(frozen=True)
class Line:
    """One row of the contrasts; a heading has no estimate."""

    name: str
    is_contrast: bool
    seen: Estimate | None = None
    color: str = style.SOFT_INK
    is_claimed: bool = True
    remark: str = ""


@dataclass(frozen=True)
class Block:
    """The contrasts of one score on one scale: `unit` of the score is 1 on the axis, `band` is the margin of equality,
    `written` formats values, and arrows show what lies beyond `most` on the axis.
    """

    label: str
    lines: Sequence[Line]
    unit: float
    band: float
    written: Callable[[float], str]
    most: float = math.inf


def reproduction(
    table: RunTable,
    tests: Sequence[ClaimTest],
    figure_of_report: str | None,
    baseline: str | None = None,
) -> Figure | None:
    """The figure of an item; None where nothing was measured. An item about accuracies with a single panel also shows
    the contrasts with `baseline` that no claim is about.
    """
    panels = [panel for panel in table.panels if table.methods(panel)]
    if not panels:
        return None
    column = SERIES.get(figure_of_report or "", "accuracy")
    shown = panels if len(table.methods(panels[0])) <= MOST_METHODS else []
    measured = [test for test in tests if test.estimate is not None]
    lines = contrast_rows([test for test in measured if test.claim.is_of_accuracy])
    if baseline and len(panels) == 1 and column == "accuracy":
        lines += _unclaimed(table, panels[0], baseline, measured)
    others = [test for test in measured if not test.claim.is_of_accuracy]
    blocks = [_accuracies(lines)] if lines else []
    return _figure(table, shown, column, [*blocks, *(_of_score(test) for test in others)])


def headlines(table: RunTable, panels: Sequence[str], tests: Sequence[ClaimTest]) -> Figure | None:
    """The curves of some panels of Table 1 and the contrasts of every headline claim; None where none was measured."""
    contrasts = [test for test in tests if test.estimate is not None]
    return _figure(table, panels, "accuracy", [_accuracies(contrast_rows(contrasts))]) if contrasts else None


def _accuracies(lines: Sequence[Line]) -> Block:
    return Block("difference in final accuracy, points (95% CI)", lines, 0.01, MARGIN, points, MOST_POINTS)


def _of_score(test: ClaimTest) -> Block:
    claim = test.claim
    less = f" {MINUS} {claim.than:g}" if claim.than else ""
    label = f"{claim.quantity}{less} (95%)"
    name = _name(claim.treatment, claim.baseline)
    return Block(label, [_line(name, True, test)], 1.0, claim.margin, signed)


def _line(name: str, is_contrast: bool, test: ClaimTest) -> Line:
    """The row of a claim; a question that another sweep tests on more seeds has the verdict given there."""
    seen = test.estimate
    remark = "" if seen is None else f"n = {seen.n}" + (f" of {test.planned}" if test.is_interim else "")
    return Line(name, is_contrast, seen, _VERDICT_COLOR[test.verdict], remark=remark)


def _figure(table: RunTable, panels: Sequence[str], column: str, blocks: Sequence[Block]) -> Figure | None:
    if not panels and not blocks:
        return None
    down = math.ceil(len(panels) / MOST_ACROSS)
    across = math.ceil(len(panels) / down) if down else 0
    # A row of curves is about as high as its axes are wide.
    curves = 0.3 + 2.7 * down
    heights = [0.75 + 0.25 * len(block.lines) for block in blocks]
    is_beside = len(panels) == 1
    methods = table.methods()
    looks = looks_of(methods)
    with style.house_style():
        figure = style.sheet(WIDTH, 0.5 + (max(3.0, sum(heights)) if is_beside else curves + sum(heights)))
        if is_beside:
            halves = figure.add_gridspec(1, 2, width_ratios=[1.0, 1.15])
        else:
            halves = figure.add_gridspec(
                2, 1, height_ratios=[curves if panels else 0.01, sum(heights) or 0.01]
            )
        left, right = halves[0], halves[1]
        if panels:
            _panels(figure, left.subgridspec(down, across), table, panels, column, looks)
        if blocks:
            grid = right.subgridspec(len(blocks), 1, height_ratios=heights)
            for place, block in enumerate(blocks):
                _contrasts(figure.add_subplot(grid[place]), block, with_key=place == 0)
        style.name_methods(figure, style.line_handles(methods, looks), columns=5)
        return figure


def _panels(
    figure: Figure,
    grid: GridSpecFromSubplotSpec,
    table: RunTable,
    panels: Sequence[str],
    column: str,
    looks: dict[str, style.Look],
) -> None:
    first: Axes | None = None
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(grid[place // grid.ncols, place % grid.ncols], sharey=first)
        _curves(axes, table, panel, column, looks)
        first = first or axes
    if first is not None and column != "accuracy":
        # Last, since it ends the scaling to what is drawn.
        first.set_ylim(bottom=0.0)


def contrast_rows(contrasts: Sequence[ClaimTest]) -> list[Line]:
    """The rows from top to bottom: a contrast measured in several panels has a heading and a row for each."""
    names = [
        f"{_name(test.claim.treatment, test.claim.baseline)}{f', {test.claim.quantity}' if test.claim.measure else ''}"
        for test in contrasts
    ]
    rows: list[Line] = []
    for name in dict.fromkeys(names):
        same = [test for test, its in zip(contrasts, names, strict=True) if its == name]
        in_panels = any(test.panel for test in same)
        rows += [Line(name, True)] if in_panels else []
        rows += [_line(test.panel if in_panels else name, not in_panels, test) for test in same]
    return rows


def _unclaimed(table: RunTable, panel: str, baseline: str, contrasts: Sequence[ClaimTest]) -> list[Line]:
    """The contrasts with `baseline` that no claim is about."""
    claimed = [{test.claim.treatment, test.claim.baseline} for test in contrasts]
    found = {
        method: difference(table.of(panel, method), table.of(panel, baseline))
        for method in table.methods(panel)
        if method != baseline and {method, baseline} not in claimed
    }
    seen = {method: estimate for method, estimate in found.items() if estimate}
    only = len(seen) == 1
    rows = [
        Line(
            _name(method, baseline) if only else method,
            only,
            estimate,
            is_claimed=False,
            remark=f"n = {estimate.n}",
        )
        for method, estimate in seen.items()
    ]
    return rows if only or not rows else [Line(f"less {baseline}", True, is_claimed=False), *rows]


def _curves(axes: Axes, table: RunTable, panel: str, column: str, looks: dict[str, style.Look]) -> None:
    last = 0.0
    for method, runs in shared(table, panel).items():
        look = looks[method]
        x, y = mean_curve(runs, column)
        if len(x):
            last = max(last, float(x[-1]))
            axes.plot(x, y, **look.line() | {"markersize": 4.5, "markevery": max(1, len(x) // 5)})
    across, up = _LABELS[column]
    style.panel_title(axes, panel, 30)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if column == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if column != "deviation":
        style.step_axis(axes, last)
    else:
        # The score compares the two halves.
        axes.axvline(0.5, color=style.SOFT_INK, linewidth=1.0, linestyle=":", zorder=1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def shared(table: RunTable, panel: str) -> dict[str, list[Run]]:
    """The runs of each method of a panel on the seeds and starting policies that all methods share, so that their means
    are comparable; all runs where none are shared.
    """
    runs = {method: table.of(panel, method) for method in table.methods(panel)}
    common = set.intersection(*({run.pair for run in each} for each in runs.values()))
    return {
        method: [run for run in each if not common or run.pair in common] for method, each in runs.items()
    }


def mean_curve(runs: Sequence[Run], curve: str) -> Curve:
    """Mean of a curve over runs. A run that diverged is carried on at its last accuracy, so that the mean does not rise
    because a run is missing; other curves are averaged over the runs that recorded each step.
    """
    series = [pd.Series(values, at) for at, values in (getattr(run, curve) for run in runs)]
    frame = pd.DataFrame(dict(enumerate(series))).sort_index()
    means = (frame.ffill() if curve == "accuracy" else frame).mean(axis="columns")
    return means.index.to_numpy(dtype=np.float64), means.to_numpy(dtype=np.float64)


def _contrasts(axes: Axes, block: Block, with_key: bool) -> None:
    lines = block.lines
    if block.band:
        edge = block.band / block.unit
        axes.axvspan(-edge, edge, color=style.RULE, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(0.0, color=style.SOFT_INK, linewidth=1.0, zorder=1)
    ends = [1.6 * block.band / block.unit]
    for row, line in enumerate(lines):
        if line.seen is None:
            continue
        _, low, high = _on_axis(line.seen, block.unit)
        axes.plot(
            [low, high], [row, row], color=line.color, linewidth=2.4 if line.is_claimed else 1.4, zorder=3
        )
        ends += [abs(low), abs(high)]
        style.margin_notes(axes, row, block.written(line.seen.mean), line.remark)
    limit = min(block.most, 1.08 * max(ends))
    axes.set_xlim(-limit, limit)
    for row, line in enumerate(lines):
        _mark(axes, row, line, limit, block.unit)
    style.row_axis(axes, [line.name for line in lines])
    axes.tick_params(axis="y", labelsize=8.0)
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if line.is_contrast and line.is_claimed else "normal")
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.set_xlabel(block.label)
    if with_key:
        _key(axes)


def _key(axes: Axes) -> None:
    """The legend of the colours of verdicts."""
    handles = [
        Line2D([], [], color=color, linewidth=2.4, marker="o", markersize=5.5, label=verdict)
        for verdict, color in _VERDICT_COLOR.items()
    ]
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=7.5, borderpad=0.2
    )


def _on_axis(seen: Estimate, unit: float) -> tuple[float, float, float]:
    """Mean and ends of an estimate in units of the axis; without an interval the ends are the mean."""
    mean = seen.mean / unit
    return (mean, seen.low / unit, seen.high / unit) if seen.shows_interval else (mean, mean, mean)


def _mark(axes: Axes, row: int, line: Line, limit: float, unit: float) -> None:
    """The dot of an estimate, and an arrow at each edge of the scale that its interval crosses."""
    if line.seen is None:
        return
    mean, low, high = _on_axis(line.seen, unit)
    for edge, marker, is_beyond in ((-limit, "<", low < -limit), (limit, ">", high > limit)):
        if is_beyond:
            axes.plot(0.98 * edge, row, marker, color=line.color, markersize=6.0, zorder=4)
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
    """The alternative text of an item's figure."""
    _, up = _LABELS[SERIES.get(figure_of_report or "", "accuracy")]
    return f"{up} (means over the seeds that all methods share)"

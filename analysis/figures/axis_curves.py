"""Curves over a tuned axis: accuracy, and what explains it, at every setting tried; one column of axes per panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cppo_lab.analysis.contrasts import estimate, pair_up
from cppo_lab.analysis.coordinates import published
from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.lines import MOST_BANDS
from cppo_lab.analysis.figures.looks import INK, SOFT_INK, Look
from cppo_lab.analysis.formatting import points
from cppo_lab.analysis.good_range import Sensitivity
from cppo_lab.analysis.grids import RATE, THRESHOLD, value_text
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.step_size import StepSize

MOST_ACROSS = 2
NO_RULE = "no rule"
_AXIS_LABELS = {RATE: "learning rate", THRESHOLD: "multiple of each method's own threshold"}


@dataclass(frozen=True)
class Row:
    """One row of axes: its label, the estimates of a curve at every setting (None where there is none), and whether its
    axis is logarithmic, of shares, or of differences.
    """

    label: str
    of: Callable[[Sensitivity], Sequence[Estimate | None]]
    kind: str
    height: float


def axis_figure(
    curves: Sequence[Sensitivity],
    looks: Mapping[str, Look],
    rows: Sequence[Row],
    marked: Callable[[str], float | None],
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """The rows of every panel of these curves; `marked` gives a method's published setting, which is marked, and
    `levels`
    the accuracy of plain policy gradient by panel where it has no such setting.
    """
    panels = list(dict.fromkeys(curve.grid.panel for curve in curves))
    across = min(MOST_ACROSS, len(panels))
    blocks = -(-len(panels) // across)
    is_rate = curves[0].grid.axes == (RATE,)
    default = marked(curves[0].grid.method) if is_rate else None
    heights = [row.height for row in rows]
    figure = style.sheet(5.6 * across, (sum(heights) + 0.2) * blocks + 0.35)
    grid = figure.subplots(
        blocks * len(rows), across, squeeze=False, sharex=True, sharey="row", height_ratios=heights * blocks
    )
    for place, panel in enumerate(panels):
        block, column = divmod(place, across)
        shown = [curve for curve in curves if curve.grid.panel == panel]
        for number, row in enumerate(rows):
            axes = grid[block * len(rows) + number, column]
            _row(axes, row, shown, looks, marked if number == 0 else None)
            _settings_axis(axes, curves, is_last=number == len(rows) - 1)
            if is_rate and default and axes.get_xlim()[0] <= default <= axes.get_xlim()[1]:
                axes.axvline(default, color=SOFT_INK, linewidth=1.0, linestyle=style.DASHES, zorder=0)
            if column == 0:
                axes.set_ylabel(row.label)
        top = grid[block * len(rows), column]
        style.panel_title(top, panel)
        if levels and panel in levels:
            ends = [curves[0].values[0], curves[0].values[-1]]
            top.plot(
                ends, [levels[panel]] * 2, color=INK, linewidth=1.1, linestyle=style.DASHES, label=NO_RULE
            )
    for spare in range(len(panels), blocks * across):
        for number in range(len(rows)):
            grid[(blocks - 1) * len(rows) + number, spare % across].remove()
    _share_limits(grid, rows, blocks)
    for number, line in enumerate(grid):
        for axes in line:
            if axes.figure is not None:
                _name_ends(axes, looks, rows[number % len(rows)].height)
    return figure


def rate_figure(known: StepSize, looks: Mapping[str, Look]) -> Figure:
    """The curves over the learning rate, with the differences from plain policy gradient and the median KL."""
    curves = known.along(RATE)
    baselines = {control.panel: control.baseline for control in known.controls}
    rows = [accuracy_row()]
    if any(curve.grid.panel in baselines for curve in curves):
        rows.append(difference_row(curves, baselines))
    rows.append(score_row("median KL per step", "kl_median", "log"))
    return axis_figure(curves, looks, rows, lambda method: published(method, RATE))


def threshold_figure(known: StepSize, axis: str, looks: Mapping[str, Look]) -> Figure:
    """The curves over a threshold, with the share of tokens masked."""
    rows = [accuracy_row(), score_row("tokens masked", "masked_share", "share")]
    levels = {panel: seen.mean for (its_axis, panel), seen in known.plain.items() if its_axis == axis}
    return axis_figure(known.along(axis), looks, rows, lambda method: published(method, axis), levels)


def accuracy_row() -> Row:
    """Final accuracy."""
    return Row("final held-out accuracy", lambda curve: curve.curve, "share", 3.1)


def score_row(label: str, score: str, kind: str) -> Row:
    """The mean of another score over seeds."""
    return Row(label, lambda curve: [estimate(column) for column in curve.grid.values(score).T], kind, 1.75)


def difference_row(curves: Sequence[Sensitivity], baselines: Mapping[str, str]) -> Row:
    """Final accuracy minus that of the panel's baseline at the same setting, paired by seeds, in the panels that have
    one.
    """
    base = {
        curve.grid.panel: curve for curve in curves if baselines.get(curve.grid.panel) == curve.grid.method
    }

    def difference(curve: Sensitivity) -> list[Estimate | None]:
        other = base.get(curve.grid.panel)
        if other is None or other is curve:
            return [None] * len(curve.values)
        columns = {value: column for column, value in enumerate(other.values)}
        found: list[Estimate | None] = []
        for column, value in enumerate(curve.values):
            if value not in columns:
                found.append(None)
                continue
            pairs = pair_up(
                [row[column] for row in curve.grid.runs], [row[columns[value]] for row in other.grid.runs]
            ).values()
            found.append(estimate([pair.value for pair in pairs], [pair.error for pair in pairs]))
        return found

    return Row("over plain policy\ngradient (points)", difference, "difference", 2.1)


_SEED: dict[str, Any] = {
    "gid": "seed",
    "linestyle": "none",
    "marker": "_",
    "markersize": 9,
    "markeredgewidth": 1.3,
    "alpha": 0.7,
}


def _row(
    axes: Axes,
    row: Row,
    curves: Sequence[Sensitivity],
    looks: Mapping[str, Look],
    marked: Callable[[str], float | None] | None,
) -> None:
    if row.kind == "difference":
        axes.axhline(0.0, color=INK, linewidth=1.0, zorder=2)
    for curve in curves:
        look, found = looks[curve.grid.method], row.of(curve)
        known = [(x, each) for x, each in zip(curve.values, found, strict=True) if each is not None]
        if not known or (row.kind == "log" and not any(each.mean > 0 for _, each in known)):
            continue
        x = np.array([at for at, _ in known])
        y = np.array([each.mean for _, each in known])
        bands = [(at, each.low, each.high) for at, each in known if each.shows_interval]
        if bands and len(curves) <= MOST_BANDS and row.kind != "log":
            at, low, high = (np.array(values) for values in zip(*bands, strict=True))
            axes.fill_between(at, low, high, color=look.color, alpha=0.1, linewidth=0, zorder=1)
        for at, each in known:
            if row.kind != "log":
                # Too few for a band: the seeds themselves.
                axes.plot([at] * len(each.values), each.values, **_SEED, color=look.color, zorder=3)
        axes.plot(x, y, **look.line(), zorder=4, label=curve.grid.method)
        if marked is not None:
            _marks(axes, curve, look, marked(curve.grid.method))
    axes.set_xscale("log", base=2)
    if row.kind == "log":
        axes.set_yscale("log")


def _marks(axes: Axes, curve: Sensitivity, look: Look, published: float | None) -> None:
    """A ring around the best setting, and a mark on the curve at the published one."""
    axes.plot(
        curve.values[curve.best],
        curve.curve[curve.best].mean,
        marker="o",
        markersize=13,
        color="none",
        markeredgecolor=look.color,
        markeredgewidth=1.4,
        zorder=5,
    )
    if curve.grid.axes == (RATE,) or published is None:
        return
    if curve.values[0] <= published <= curve.values[-1]:
        means = [each.mean for each in curve.curve]
        height = float(np.interp(np.log2(published), np.log2(curve.values), means))
        axes.plot(published, height, marker="|", color=INK, markersize=15, markeredgewidth=1.6, zorder=6)


def _settings_axis(axes: Axes, curves: Sequence[Sensitivity], is_last: bool) -> None:
    values = sorted({float(value) for curve in curves for value in curve.values})
    # A label needs about a seventh of the axis; settings closer than that have a tick alone.
    room = 0.14 * np.log2(values[-1] / values[0])
    labelled: list[float] = []
    for value in values:
        if not labelled or np.log2(value / labelled[-1]) > room:
            labelled.append(value)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: value_text(value) if any(np.isclose(value, labelled)) else "")
    )
    air = 2 ** (0.03 * np.log2(values[-1] / values[0]))
    axes.set_xlim(values[0] / air, values[-1] * air)
    axis = curves[0].grid.axes[0]
    if is_last:
        axes.set_xlabel(_AXIS_LABELS.get(axis, axis.removeprefix("algo.")))
        axes.tick_params(labelbottom=True)


def _share_limits(grid: np.ndarray, rows: Sequence[Row], blocks: int) -> None:
    """The same vertical axis for a row in all blocks."""
    for number, row in enumerate(rows):
        same = [
            axes
            for block in range(blocks)
            for axes in grid[block * len(rows) + number]
            if axes.figure is not None
        ]
        curves = [
            line
            for axes in same
            for line in axes.lines
            if line.get_gid() == _SEED["gid"] or not str(line.get_label()).startswith("_")
        ]
        ends = [end for line in curves for end in np.asarray(line.get_ydata(), dtype=np.float64)]
        finite = np.array([end for end in ends if np.isfinite(end)])
        if row.kind == "log":
            shown = finite[finite > 0]
            for axes in same:
                if len(shown):
                    axes.set_ylim(max(shown.min(), style.log_floor(shown)) / 1.6, shown.max() * 1.6)
                    style.log_axis(axes.yaxis)
            continue
        if row.kind == "difference":
            finite = np.append(finite, 0.0)
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
        air = 0.12 * max(high - low, 0.01)
        for axes in same:
            axes.set_ylim(low - air if row.kind == "difference" else max(0.0, low - air), high + air)
            form = _points_tick if row.kind == "difference" else _share_tick
            axes.yaxis.set_major_formatter(FuncFormatter(form))


def _share_tick(value: float, _: int) -> str:
    return f"{round(100 * value, 1):g}%"


def _points_tick(value: float, _: int) -> str:
    return points(value).removesuffix(".0").replace("±", "")


def _name_ends(axes: Axes, looks: Mapping[str, Look], height: float) -> None:
    """Names beside the right ends of the lines in axes of `height` inches, moved apart where they would overlap."""
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [
        to_axes.transform((np.asarray(line.get_xdata())[-1], np.asarray(line.get_ydata())[-1]))
        for line in lines
    ]
    heights = style.spread([float(end[1]) for end in ends], 0.16 / height, 0.0, 1.0)
    for line, end, at in zip(lines, ends, heights, strict=True):
        name = str(line.get_label())
        color = looks[name].color if name in looks else INK
        axes.annotate(
            name,
            xy=(float(end[0]), float(end[1])),
            xytext=(1.035, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=color,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.6,
                "alpha": 0.6,
                "shrinkA": 0,
            },
        )

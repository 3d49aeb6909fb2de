"""The house style: type, axes, legends and the small pieces that figures share. Colours and methods: `looks`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import (
    EngFormatter,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression

from cppo_lab.analysis.figures.looks import CROSS, INK, PAPER, RULE, SOFT_INK, Look
from cppo_lab.analysis.formatting import tidy

# One hue from light to dark, which survives colour deficiency and grey print.
SEQUENTIAL = "Blues"
# Decades that a logarithmic axis reaches below the median of what it shows.
MOST_DECADES = 3
DASHES = (0, (2, 2))
"""Of the line of a starting policy."""

FONT: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
}
RC: dict[Any, Any] = {
    **FONT,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "axes.labelcolor": SOFT_INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": SOFT_INK,
    "ytick.labelcolor": SOFT_INK,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "ytick.minor.size": 0.0,
    "xtick.minor.size": 0.0,
    # Names of methods are text, dollar signs included.
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.solid_capstyle": "round",
    "lines.dash_capstyle": "round",
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "cppo-lab",
    "path.simplify": True,
    "path.simplify_threshold": 0.4,
}


@contextmanager
def house_style() -> Iterator[None]:
    """The house style for the figures drawn inside; restores what was set before."""
    with matplotlib.rc_context(RC):
        yield


def sheet(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches, laid out without a pyplot manager."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09))


def small_multiples(
    count: int,
    columns: int,
    width: float,
    height: float,
    air: tuple[float, float] = (0.0, 0.0),
    **shared: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes, at most `columns` in a row, each of `width` x `height` inches; `air` is added to the
    whole.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = sheet(width * columns + air[0], height * rows + air[1])
    grid = [axes for row in figure.subplots(rows, columns, squeeze=False, **shared) for axes in row]
    for spare in grid[count:]:
        spare.remove()
    return figure, grid[:count]


def stamp(figure: Figure, mark: str) -> Bbox:
    """Write `mark` in a strip below a figure that is already laid out; returns the area to save, in inches.

    The strip lies outside the figure's own bounds, so it covers nothing whatever the layout.
    """
    width, height = figure.get_size_inches()
    for legend in figure.legends:
        # Its place depends on the saved area, unless it is fixed where it is.
        place = legend.get_window_extent().transformed(figure.transFigure.inverted())
        legend.set_loc((place.x0, place.y0))
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    lines = textwrap.wrap(mark, max(24, int(11 * width)))
    strip = 0.12 + 0.16 * len(lines)
    ground = Rectangle((0, -strip / height), 1, strip / height, transform=figure.transFigure, color=PAPER)
    figure.add_artist(ground)
    figure.text(
        0.09 / width,
        -0.06 / height,
        "\n".join(lines),
        color=CROSS,
        fontsize=9,
        fontweight="bold",
        va="top",
    )
    return Bbox.from_bounds(0, -strip, width, height + strip)


def percent_axis(axes: Axes, low: float = 0.0, high: float = 1.0) -> None:
    """Vertical axis of shares 0..1 printed as percent, with a little air above the largest value."""
    axes.set_ylim(low, min(1.0, high) + 0.01 if high >= 1.0 else high)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent_label(value, high)))


def percent_label(value: float, high: float) -> str:
    """Tick text for a share, with decimals only where the axis is so short that it needs them."""
    digits = 0 if high > 0.08 else 1 if high > 0.01 else 2
    return f"{round(100 * value, digits):g}%"


def position_axis(axis: Axis) -> None:
    """Ticks of relative positions 0..1 in a response, or of other whole percents."""
    axis.set_major_locator(MaxNLocator(4))
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def step_axis(axes: Axes, last: float) -> None:
    """Horizontal axis of training steps 0..last, whole numbers only."""
    axes.set_xlim(-0.02 * last, last * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def spent_axis(axes: Axes, kind: str, ends: Sequence[float]) -> None:
    """Horizontal axis of what training had spent (`kind`: a key of `spent.AXES`) by the `ends` of the lines."""
    last = max(ends)
    if kind == "kl":
        axes.set_xscale("log")
        axes.set_xlim(left=max(axes.get_xlim()[0], log_floor(np.array(ends))), right=1.15 * last)
        log_axis(axes.xaxis)
        return
    step_axis(axes, last or 1.0)
    if kind == "time":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _duration(value)))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 3, 6, 10]))
    elif kind != "steps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _duration(seconds: float) -> str:
    if seconds < 120 or seconds % 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 7200 or seconds % 3600 else f"{seconds / 3600:g} h"


def log_axis(axis: Axis) -> None:
    """Plain decimal ticks on an axis already set to a log scale, finer ones where it spans few decades."""
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low) if low > 0 else 9.0
    subs = (1.0,) if decades > 2.2 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tidy(f"{value:g}")))


def log_floor(values: npt.NDArray[np.float64]) -> float:
    """Where a log axis of these positive values should start: MOST_DECADES below their median, so that one value next
    to zero does not squeeze all others.
    """
    return float(np.median(values)) / 10**MOST_DECADES


def row_axis(axes: Axes, names: Sequence[str]) -> None:
    """Vertical axis of named rows, the first one on top, and grid lines of the horizontal axis alone."""
    axes.set_ylim(len(names) - 0.45, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")


def name_methods(figure: Figure, handles: Sequence[Line2D], columns: int = 8) -> None:
    """The legend of a whole figure, above it, in order by row, in as many columns as its width has room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(columns, len(handles), int(figure.get_figwidth() / (0.65 + 0.075 * longest))))
    figure.legend(
        handles=_row_major(handles, columns), loc="outside upper left", ncols=columns, columnspacing=1.8
    )


def _row_major(handles: Sequence[Line2D], columns: int) -> list[Line2D]:
    """Handles so ordered that matplotlib, which fills a legend's columns first, shows them in order by row."""
    if len(handles) <= columns:
        return [*handles]
    return [handle for column in range(columns) for handle in handles[column::columns]]


def line_handles(methods: Sequence[str], looks: dict[str, Look]) -> list[Line2D]:
    """One legend entry per method, drawn as its lines are."""
    return [
        Line2D([], [], **looks[method].line() | {"linewidth": 2.2, "label": method}) for method in methods
    ]


def starting_policy_handle(label: str = "starting policy") -> Line2D:
    """The legend entry of a starting policy's line."""
    return Line2D([], [], color=SOFT_INK, linewidth=1.0, linestyle=DASHES, label=label)


def cell_edges(centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Edges [n + 1] of cells around `centres` [n], rising: half way between neighbours, and as wide at the ends."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[1:] + centres[:-1]) / 2
    first, last = centres[0] - (between[0] - centres[0]), centres[-1] + (centres[-1] - between[-1])
    return np.concatenate([[first], between, [last]])


def panel_title(axes: Axes, panel: str, width: int = 56) -> None:
    """The name of a panel above its axes, on as many lines of `width` characters as it needs."""
    axes.set_title("\n".join(textwrap.wrap(panel, width)))


def margin_notes(axes: Axes, height: float, value: str, remark: str) -> None:
    """A value and a remark to the right of the axes, at `height` of its vertical axis."""
    for offset, text, size, weight, color in (
        (8, value, 9, "bold", INK),
        (54, remark, 8, "normal", SOFT_INK),
    ):
        axes.annotate(
            text,
            xy=(1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(offset, 0),
            textcoords="offset points",
            va="center",
            fontsize=size,
            fontweight=weight,
            color=color,
            annotation_clip=False,
        )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near `wanted` as can be by least squares, in order, at least `gap` apart, within low..high."""
    if not wanted:
        return []
    order = np.argsort(np.asarray(wanted), kind="stable")
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    # Less what the gaps before it take, a position only has to rise.
    taken = gap * np.arange(len(wanted))
    rising = isotonic_regression(np.asarray(wanted, dtype=np.float64)[order] - taken).x
    placed = np.empty(len(wanted))
    placed[order] = np.clip(rising, low, high - taken[-1]) + taken
    return [float(position) for position in placed]

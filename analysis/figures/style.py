"""The one house style: colours, markers, type and the small pieces every figure shares.

A method looks the same in every figure and every report: its colour, marker and line come from a fixed table
by name, and for a name not in the table from a hash of that name. The colours are those of Okabe and Ito,
distinguishable under the common colour deficiencies; marker and line repeat the message in grey print.
"""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from cppo_lab.analysis.formatting import tidy

INK = "#1c2024"
SOFT_INK = "#5d666f"
RULE = "#d5d9de"
PAPER = "#fefefd"

# Every colour a figure may use, with its counterpart on a dark page (the page swaps them in the inline SVG).
DARK = {
    INK: "#e7e9ec",
    SOFT_INK: "#a3abb4",
    RULE: "#3a4149",
    PAPER: "#16191d",
    "#d55e00": "#f0803c",
    "#e69f00": "#f0b429",
    "#0072b2": "#4aa8e8",
    "#009e73": "#2cc79a",
    "#cc79a7": "#e39cc2",
    "#56b4e9": "#8fd0f7",
    "#7a5195": "#b58fd6",
    "#8c6d1f": "#c9a64a",
    "#4d4d4d": "#b9bec4",
    "#a50f15": "#ff7b72",
    "#3b7d23": "#86c96a",
    "#00707a": "#3fb8c4",
}
CROSS = "#a50f15"
# One hue from light to dark: the same to the colour-blind and in grey print.
SEQUENTIAL = "Blues"
# Decades that a logarithmic axis reaches below the median of what it shows.
MOST_DECADES = 3

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


@dataclass(frozen=True)
class Look:
    """How one method is drawn everywhere."""

    color: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def size(self) -> float:
        """Marker size in points; crosses and stars look smaller than filled shapes of the same size."""
        return 7.0 if self.marker in "XP" else 5.4

    @property
    def linestyle(self) -> tuple[float, tuple[float, ...]] | Literal["-"]:
        return (0.0, self.dashes) if self.dashes else "-"


SOLID: tuple[float, ...] = ()
DASHED = (4.0, 1.6)
DOTTED = (1.2, 1.6)
DASH_DOT = (5.0, 1.5, 1.2, 1.5)

# Kin share a colour: policy gradients orange-red, ratio clipping yellow, DPPO blue. Methods that one of the paper's
# figures sets side by side do not: CPPO is green, and its variants differ from it.
LOOKS = {
    "pg": Look("#d55e00", "X", SOLID),
    "reinforce": Look("#d55e00", "<", DASHED),
    "reinforce_pp": Look("#d55e00", ">", DASH_DOT),
    "reinforce_pp_baseline": Look("#d55e00", "d", DOTTED),
    "rloo": Look("#4d4d4d", "v", SOLID),
    "ppo": Look("#8c6d1f", "v", SOLID),
    "grpo": Look("#e69f00", "s", SOLID),
    "grpo_tis": Look("#e69f00", "P", DASH_DOT),
    "dapo": Look("#e69f00", "D", DASHED),
    "dr_grpo": Look("#e69f00", "p", DOTTED),
    "icepop": Look("#8c6d1f", "D", DASHED),
    "dppo_tv": Look("#0072b2", "^", SOLID),
    "dppo_kl": Look("#0072b2", "v", DASHED),
    "dppo_topk_tv": Look("#56b4e9", "^", SOLID),
    "dppo_topk_kl": Look("#56b4e9", "v", DASHED),
    "drpo": Look("#56b4e9", "d", DASH_DOT),
    "cppo": Look("#009e73", "o", SOLID),
    "cppo_binary": Look("#d55e00", "h", DASHED),
    "cppo_kl": Look("#7a5195", "p", DASH_DOT),
    "cppo_soft": Look("#d55e00", "D", DOTTED),
    "cppo_fixed_budget": Look("#d55e00", "o", SOLID),
    "cppo_larger_budget": Look("#d55e00", "v", DASH_DOT),
    "cppo_relative_budget": Look("#e69f00", "^", DOTTED),
    "cppo_lower_floor": Look("#7a5195", "<", DASHED),
    "cppo_no_budget": Look("#7a5195", "h", DASHED),
    "cppo_no_weights": Look("#d55e00", "p", DASH_DOT),
    "cppo_shuffled": Look("#3b7d23", "d", DOTTED),
    "cispo": Look("#cc79a7", "D", SOLID),
    "minpro": Look("#7a5195", "s", DASHED),
    "gspo": Look("#7a5195", "P", SOLID),
    "gmpo": Look("#7a5195", "p", DASHED),
    "trm_max": Look("#00707a", "d", SOLID),
    "trm_avg": Look("#0072b2", "s", DASHED),
    "trm_max_avg": Look("#00707a", "P", DASH_DOT),
    "sapo": Look("#4d4d4d", "h", DASHED),
    "ctpo": Look("#4d4d4d", ">", DASH_DOT),
}
_SPARE_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7a5195", "#00707a", "#4d4d4d")
_SPARE_MARKERS = "os^DvPXd"
# A colour that comes again has another marker, since dashes alone are not told apart.
SPARE = tuple(
    Look(color, _SPARE_MARKERS[(place + 3 * turn) % len(_SPARE_MARKERS)], dashes)
    for turn, dashes in enumerate((SOLID, DASHED, DASH_DOT))
    for place, color in enumerate(_SPARE_COLORS)
)


def looks_of(methods: Sequence[str]) -> dict[str, Look]:
    """One look per method, no two alike: the fixed table first, hashed spares for names it does not hold."""
    looks = {method: LOOKS[method] for method in methods if method in LOOKS}
    for method in methods:
        if method in looks:
            continue
        start = zlib.crc32(method.encode()) % len(SPARE)
        candidates = [SPARE[(start + step) % len(SPARE)] for step in range(len(SPARE))]
        used = set(looks.values())
        colors = {look.color for look in used}
        fresh = [look for look in candidates if look.color not in colors] or [
            look for look in candidates if look not in used
        ]
        looks[method] = fresh[0] if fresh else candidates[0]
    return looks


@contextmanager
def house_style() -> Iterator[None]:
    """The house style for the figures made inside; what was set before is back afterwards."""
    with matplotlib.rc_context(RC):
        yield


def sheet(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches, laid out without a pyplot manager."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09))


def stamp(figure: Figure, mark: str) -> Bbox:
    """Write `mark` in a strip below a figure that is laid out already; returns the area to save, in inches.

    The strip lies outside the figure's own bounds, so that it can cover nothing in them, whatever the layout is.
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


def row_major(handles: Sequence[Line2D], columns: int) -> list[Line2D]:
    """Legend handles so ordered that matplotlib, which fills columns first, shows them in order by row."""
    rows = -(-len(handles) // columns)
    return (
        [handle for column in range(columns) for handle in handles[column::columns]]
        if rows > 1
        else [*handles]
    )


def name_methods(figure: Figure, handles: Sequence[Line2D], columns: int = 8) -> None:
    """The legend of a whole figure, above it, in order by row, in as many columns as its width has room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(columns, len(handles), int(figure.get_figwidth() / (0.65 + 0.075 * longest))))
    figure.legend(
        handles=row_major(handles, columns), loc="outside upper left", ncols=columns, columnspacing=1.8
    )


def line_handles(methods: Sequence[str], looks: dict[str, Look]) -> list[Line2D]:
    """One legend entry per method, drawn as its lines are."""
    return [
        Line2D(
            [],
            [],
            color=looks[method].color,
            linestyle=looks[method].linestyle,
            linewidth=2.2,
            marker=looks[method].marker,
            markersize=looks[method].size,
            markeredgecolor=PAPER,
            label=method,
        )
        for method in methods
    ]


def cell_edges(centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Edges [n + 1] of cells around `centres` [n], rising: half way between neighbours, and as wide at the ends."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[1:] + centres[:-1]) / 2
    first, last = centres[0] - (between[0] - centres[0]), centres[-1] + (centres[-1] - between[-1])
    return np.concatenate([[first], between, [last]])


def log_axis(axis: Axis) -> None:
    """Plain decimal ticks on an axis already set to a log scale, finer ones where it spans few decades."""
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low) if low > 0 else 9.0
    subs = (1.0,) if decades > 2.2 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tidy(f"{value:g}")))


def log_floor(values: npt.NDArray[np.float64]) -> float:
    """Where a log axis of these positive values should end below: MOST_DECADES under their median, so that one
    value next to zero does not press all others together.
    """
    return float(np.median(values)) / 10**MOST_DECADES


def step_axis(axes: Axes, last: float) -> None:
    """Horizontal axis of training steps 0..last, whole numbers only."""
    axes.set_xlim(-0.02 * last, last * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


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
    """Positions as near `wanted` as can be, in the same order, at least `gap` apart and within low..high."""
    if not wanted:
        return []
    order = np.argsort(np.asarray(wanted), kind="stable")
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    placed = [float(np.clip(wanted[i], low, high)) for i in order]
    for _ in range(200):
        moved = False
        for k in range(len(placed) - 1):
            overlap = gap - (placed[k + 1] - placed[k])
            if overlap > 1e-9:
                placed[k] -= overlap / 2
                placed[k + 1] += overlap / 2
                moved = True
        if placed[0] < low:
            placed = [value + (low - placed[0]) if value < low else value for value in placed]
        if placed[-1] > high:
            placed = [min(value, high) for value in placed]
        if not moved:
            break
    for k in range(1, len(placed)):
        placed[k] = max(placed[k], placed[k - 1] + gap)
    excess = placed[-1] - high
    if excess > 0:
        placed[-1] = high
        for k in range(len(placed) - 2, -1, -1):
            placed[k] = min(placed[k], placed[k + 1] - gap)
    out = [0.0] * len(wanted)
    for position, index in enumerate(order):
        out[int(index)] = placed[position]
    return out

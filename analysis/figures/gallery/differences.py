"""Paired differences in final accuracy from the baseline."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cppo_lab.analysis.contrasts import Contrast
from cppo_lab.analysis.figures import CannotDraw, Drawing, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.estimates import draw_estimate, draw_ticks, rows_of_panels
from cppo_lab.analysis.figures.looks import INK
from cppo_lab.analysis.formatting import plural, points

# The axis never reaches further than this, so that one method with an enormous interval hides no other.
FURTHEST = 1.0


@figure(
    "differences",
    title="Difference from the baseline",
    section="accuracy",
    caption="Final accuracy minus that of the baseline, paired by seed and starting policy. Ticks are pairs, bars"
    " 95% Student t intervals over pairs; a point without a bar has one pair or two. A difference is "
    "inconclusive when its bar crosses zero or its adjusted p is 0.05 or more.",
    about="paired differences in final accuracy from the baseline",
    place=3,
)
def draw(data: FigureData) -> Drawing:
    """One row per contrast, largest difference first; zero as a line."""
    if not data.summary.contrasts:
        raise CannotDraw("there is no other method to compare with")
    ranked = [
        (panel, sorted(rows, key=lambda c: c.estimate.mean if c.estimate else 0.0, reverse=True))
        for panel in data.summary.panels
        if (rows := [contrast for contrast in panel.contrasts if contrast.estimate])
    ]
    if not ranked:
        raise CannotDraw("no method shares a seed and a starting policy with the baseline")
    methods = {group.label: group.method for group in data.study.grouping.groups}
    limits = _limits([contrast for _, rows in ranked for contrast in rows])
    sheet, grid = rows_of_panels([len(rows) for _, rows in ranked], 0.42)
    for axes, (panel, rows) in zip(grid, ranked, strict=True):
        _panel(axes, rows, data, methods, limits)
        style.panel_title(axes, panel.panel)
    axes.set_xlabel(f"final accuracy minus {methods.get(panel.baseline or '', panel.baseline)} (points)")
    pairs = sorted({contrast.n for _, rows in ranked for contrast in rows})
    return Drawing(sheet, f"n = {' or '.join([*map(str, pairs[:-1]), plural(pairs[-1], 'pair')])}.")


def _limits(contrasts: list[Contrast]) -> tuple[float, float]:
    ends = [0.0]
    for contrast in contrasts:
        ends += contrast.values.tolist()
        if contrast.estimate is not None and contrast.estimate.shows_interval:
            ends += [contrast.estimate.low, contrast.estimate.high]
    low, high = max(-FURTHEST, min(ends)), min(FURTHEST, max(ends))
    air = 0.06 * max(high - low, 0.02)
    return low - air, high + air


def _panel(
    axes: Axes,
    contrasts: list[Contrast],
    data: FigureData,
    methods: dict[str, str],
    limits: tuple[float, float],
) -> None:
    axes.axvline(0.0, color=INK, linewidth=1.1, zorder=2)
    for row, contrast in enumerate(contrasts):
        if contrast.estimate is None:
            continue
        look = data.looks[methods[contrast.treatment]]
        draw_estimate(axes, contrast.estimate, row, look, *limits)
        draw_ticks(axes, contrast.values.tolist(), row - 0.24, look)
        style.margin_notes(axes, row, points(contrast.estimate.mean), contrast.verdict)
    axes.set_xlim(*limits)
    style.row_axis(axes, [methods[contrast.treatment] for contrast in contrasts])
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    number = round(100 * value, 1)
    return "0" if number == 0 else f"{number:+g}".replace("-", "−")

"""Held-out accuracy over training, one axes per panel, each line named at its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lab.analysis.figures import CannotDraw, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.lines import MOST_BANDS, axes_of_panels, draw_curves, starting_line
from cppo_lab.analysis.figures.looks import INK, PAPER, SOFT_INK, Look
from cppo_lab.analysis.run_table import ACCURACY
from cppo_lab.analysis.spent import AXES, DEFAULT_AXIS

MOST_DIRECT_LABELS = 9


@dataclass(frozen=True)
class LineName:
    """A name to put beside the end of a line, at `place` on the horizontal axis; no look means the starting policy."""

    text: str
    place: float
    value: float
    look: Look | None


@figure(
    "accuracy",
    title="Held-out accuracy over training",
    section="accuracy",
    caption="Accuracy on the held-out problems at each evaluation. Thick lines are means over seeds, thin lines "
    "single seeds; {band} ({seeds}). The dashed line is the starting policy; the number beside each "
    "method is its mean at the last step.{failures}",
    about="held-out accuracy over training",
    paper="Figures 1 and 4 of the CPPO paper",
    needs=(ACCURACY,),
    place=1,
    axes=tuple(AXES),
)
def draw(data: FigureData) -> Figure:
    """Mean accuracy per method with its band, runs as thin lines."""
    sheet, panels = axes_of_panels(data)
    drawn = [_panel(axes, panel, several_rows=len(panels) > 2) for axes, panel in panels]
    if not any(drawn):
        raise CannotDraw(f"no run recorded {data.axis.reads}")
    return sheet


def _panel(axes: Axes, data: FigureData, several_rows: bool) -> bool:
    """Whether there was anything to draw."""
    names: list[LineName] = []
    for group in data.groups:
        curves, along = data.curves(group, ACCURACY, from_step=0), None
        if curves is None:
            continue
        if data.axis.key != DEFAULT_AXIS:
            spent = data.spent(group)
            if spent is None:
                continue
            along = (spent.positive() if data.axis.is_log else spent).at(curves)
            if not np.isfinite(along.values[:, curves.steps > 0]).any():
                continue
        look = data.looks[group.method]
        draw_curves(axes, curves, look, carry=True, band=len(data.groups) <= MOST_BANDS, along=along)
        mean, places = curves.carried().mean(), curves.steps if along is None else along.median()
        known = np.flatnonzero(~np.isnan(mean) & ~np.isnan(places))
        if len(known):
            names.append(LineName(group.method, float(places[known[-1]]), float(mean[known[-1]]), look))
    if not names:
        axes.set_axis_off()
        return False
    ends = [name.place for name in names]
    style.spent_axis(axes, data.axis.key, [*ends, data.last_step] if data.axis.key == DEFAULT_AXIS else ends)
    style.percent_axis(axes, 0.0, data.top)
    level = starting_line(axes, data)
    if level is not None:
        names.append(LineName("starting policy", axes.get_xlim()[1], level, None))
    axes.set_xlabel(data.axis.label)
    axes.set_ylabel("held-out accuracy")
    style.panel_title(axes, data.panel or "")
    _name_lines(axes, names, data.top, 1.25 if several_rows else 1.0)
    return True


def _name_lines(axes: Axes, names: list[LineName], top: float, height_of_line: float) -> None:
    """Names to the right of the axes, beside the ends of their lines, moved apart where they would overlap."""
    gap = (0.04 if len(names) > MOST_DIRECT_LABELS else 0.058 * height_of_line) * top
    heights = style.spread([name.value for name in names], gap, 0.02 * top, 0.98 * top)
    # From the left end of the axes to the right one, in accuracy upwards.
    beside = axes.get_yaxis_transform()
    right = axes.get_xlim()[1]
    for name, height in zip(names, heights, strict=True):
        is_near = name.place > 0.9 * right
        color = name.look.color if name.look else SOFT_INK
        axes.annotate(
            "",
            xy=(name.place, name.value),
            xytext=(1.043, height),
            textcoords=beside,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.8,
                # A long leader must not look like a curve that goes on.
                "linestyle": "-" if is_near else (0, (1, 2.5)),
                "alpha": 0.7,
                "shrinkA": 0,
                "shrinkB": 4 if name.look else 0,
            },
            annotation_clip=False,
        )
        if name.look:
            axes.plot(
                [1.0625],
                [height],
                transform=beside,
                marker=name.look.marker,
                color=color,
                markersize=name.look.size,
                markeredgecolor=PAPER,
                clip_on=False,
            )
        axes.text(
            1.0865,
            height,
            f"{name.text}  {100 * name.value:.1f}%",
            transform=beside,
            color=INK if name.look else SOFT_INK,
            fontsize=8.5,
            va="center",
            clip_on=False,
        )

"""Held-out accuracy over training, one axes per panel, each line named at its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lab.analysis.figures import figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.lines import MOST_BANDS, axes_of_panels, draw_curves, starting_line
from cppo_lab.analysis.figures.looks import INK, PAPER, SOFT_INK, Look
from cppo_lab.analysis.run_table import ACCURACY

MOST_DIRECT_LABELS = 9


@dataclass(frozen=True)
class LineName:
    """A name to put beside the end of a line, at `step` and `value`; no look means the starting policy."""

    text: str
    step: float
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
)
def draw(data: FigureData) -> Figure:
    """Mean accuracy per method with its band, runs as thin lines."""
    sheet, panels = axes_of_panels(data)
    for axes, panel in panels:
        _panel(axes, panel, several_rows=len(panels) > 2)
    return sheet


def _panel(axes: Axes, data: FigureData, several_rows: bool) -> None:
    names: list[LineName] = []
    for group in data.groups:
        curves = data.curves(group, ACCURACY, from_step=0)
        if curves is None:
            continue
        look = data.looks[group.method]
        draw_curves(axes, curves, look, carry=True, band=len(data.groups) <= MOST_BANDS)
        mean = curves.carried().mean()
        end = np.flatnonzero(~np.isnan(mean))[-1]
        names.append(LineName(group.method, float(curves.steps[end]), float(mean[end]), look))
    style.step_axis(axes, data.last_step)
    style.percent_axis(axes, 0.0, data.top)
    level = starting_line(axes, data)
    if level is not None:
        names.append(LineName("starting policy", axes.get_xlim()[1], level, None))
    axes.set_xlabel("training step")
    axes.set_ylabel("held-out accuracy")
    style.panel_title(axes, data.panel or "")
    _name_lines(axes, names, data, 1.25 if several_rows else 1.0)


def _name_lines(axes: Axes, names: list[LineName], data: FigureData, height_of_line: float) -> None:
    """Names to the right of the axes, beside the ends of their lines, moved apart where they would overlap."""
    top, last = data.top, data.last_step
    gap = (0.04 if len(names) > MOST_DIRECT_LABELS else 0.058 * height_of_line) * top
    heights = style.spread([name.value for name in names], gap, 0.02 * top, 0.98 * top)
    for name, height in zip(names, heights, strict=True):
        color = name.look.color if name.look else SOFT_INK
        axes.annotate(
            "",
            xy=(name.step, name.value),
            xytext=(last * 1.065, height),
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.8,
                "alpha": 0.7,
                "shrinkA": 0,
                "shrinkB": 4 if name.look else 0,
            },
            annotation_clip=False,
        )
        if name.look:
            axes.plot(
                [last * 1.085],
                [height],
                marker=name.look.marker,
                color=color,
                markersize=name.look.size,
                markeredgecolor=PAPER,
                clip_on=False,
            )
        axes.text(
            last * 1.11,
            height,
            f"{name.text}  {100 * name.value:.1f}%",
            color=INK if name.look else SOFT_INK,
            fontsize=8.5,
            va="center",
            clip_on=False,
        )

"""Accuracy over compute with the fitted sigmoid of each method, carried on to its asymptote."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from cppo_lab.analysis.figures import CannotDraw, DoesNotApply, Drawing, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.looks import PAPER, Look
from cppo_lab.analysis.formatting import listed
from cppo_lab.analysis.run_table import ACCURACY
from cppo_lab.analysis.sigmoid import Fit, Refused, fits, worth_showing

AHEAD = 4.0
"""The curves are carried on to so many times the compute of the last evaluation."""
MOST_REASONS = 4


@figure(
    "scaling",
    title="Asymptote and efficiency",
    section="accuracy",
    caption="Mean accuracy at each evaluation (markers) over compute, on a logarithmic axis, with the sigmoid fitted "
    "to it (ScaleRL, arXiv:2510.13786): solid within the data, dotted beyond. Bars on the right are the asymptotes "
    "with their 95% bootstrap intervals over seeds; a tick on a curve is its midpoint, where half of the gain is made.",
    about="sigmoids of accuracy over compute, with each method's asymptote and midpoint",
    needs=(ACCURACY,),
    place=4,
)
def draw(data: FigureData) -> Drawing:
    """One axes per panel with a fit."""
    axis, found = fits(data.study)
    if not worth_showing(found):
        raise DoesNotApply("every curve is too short")
    panels = [
        panel
        for panel in map(data.of_panel, data.panels)
        if any(isinstance(found[group.label], Fit) for group in panel.groups)
    ]
    if not panels:
        raise CannotDraw(f"no curve shows its asymptote. {_refused(found)}".rstrip("."))
    sheet, grid = style.small_multiples(len(panels), 2, 7.6 if len(panels) == 1 else 5.2, 4.3)
    for axes, panel in zip(grid, panels, strict=True):
        _panel(axes, panel, found, axis.label)
    return Drawing(sheet, _refused(found))


def _refused(found: dict[str, Fit | Refused]) -> str:
    """Which curves are not fitted, and why where they are few; the table has every reason."""
    reasons = [f"{label} ({made.reason})" for label, made in found.items() if isinstance(made, Refused)]
    if len(reasons) > MOST_REASONS:
        return f"Not fitted: {len(reasons)} of {len(found)} curves; the table says why."
    return f"Not fitted: {listed(reasons)}." if reasons else ""


def _panel(axes: Axes, data: FigureData, found: dict[str, Fit | Refused], label: str) -> None:
    made = {group.method: fit for group in data.groups if isinstance(fit := found[group.label], Fit)}
    first = min(fit.compute[0] for fit in made.values())
    last = max(fit.compute[-1] for fit in made.values())
    axes.set_xscale("log")
    axes.set_xlim(0.7 * first, AHEAD * last * 1.3 ** (1 + len(made)))
    for place, (method, fit) in enumerate(made.items()):
        _curve(axes, fit, data.looks[method], AHEAD * last, AHEAD * last * 1.3 ** (place + 1))
    style.percent_axis(axes, 0.0, data.top)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=9))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)
    axes.set_ylabel("held-out accuracy")
    style.panel_title(axes, data.panel or "")
    handles = style.line_handles(list(made), data.looks)
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=2.6)


def _curve(axes: Axes, fit: Fit, look: Look, end: float, bar: float) -> None:
    within = np.geomspace(fit.compute[0], fit.compute[-1], 80)
    beyond = np.geomspace(fit.compute[-1], end, 40)
    axes.plot(
        fit.compute,
        fit.accuracy,
        linestyle="none",
        marker=look.marker,
        markersize=look.size,
        color=look.color,
    )
    axes.plot(within, fit.sigmoid.at(within), color=look.color, linewidth=1.6)
    axes.plot(beyond, fit.sigmoid.at(beyond), color=look.color, linewidth=1.3, linestyle=":")
    middle = fit.sigmoid.midpoint
    if middle > axes.get_xlim()[0]:
        height = fit.sigmoid.at(np.array([middle]))
        axes.plot([middle], height, marker="|", markersize=13, markeredgewidth=1.8, color=look.color)
    low, high = fit.interval(0)
    axes.plot([bar, bar], [low, high], color=look.color, linewidth=2.4, alpha=0.9)
    axes.plot(
        [bar],
        [fit.sigmoid.asymptote],
        marker=look.marker,
        markersize=look.size,
        color=look.color,
        markeredgecolor=PAPER,
    )

"""Held-out accuracy: against training steps, and against the KL divergence spent to reach it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.curves import Curves, cumulative, curves_of
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import ACCURACY, KL

MOST_DIRECT_LABELS = 9
# More overlapping bands than this hide the lines; the interval figure still shows every interval.
MOST_BANDS = 6
UPDATES = "train/updates"


@dataclass(frozen=True)
class LineName:
    """A name to stand beside the end of a line, at `step` and `value`; no look means the starting policy."""

    text: str
    step: float
    value: float
    look: style.Look | None


def accuracy_against_steps(study: Study) -> Figure | None:
    """Mean held-out accuracy per method with its band, seeds as thin lines; one axes per panel."""
    return _one_axes_per_panel(study, _accuracy_panel)


def accuracy_against_kl(study: Study) -> Figure | None:
    """Held-out accuracy against the cumulative k3 KL from the rollout policies, one axes per panel."""
    return _one_axes_per_panel(study, _kl_panel)


def _one_axes_per_panel(
    study: Study, draw: Callable[[Axes, Study, str, dict[str, style.Look], float], bool]
) -> Figure | None:
    """The figure of a study's panels that have evaluations; None when `draw` found nothing to draw in any."""
    panels = [
        panel
        for panel in study.grouping.panels
        if any(curves_of(study, group, ACCURACY) is not None for group in study.grouping.in_panel(panel))
    ]
    if not panels:
        return None
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    with style.house_style():
        figure = style.sheet(7.6 if columns == 1 else 10.4, 4.3 if rows == 1 else 3.5 * rows)
        looks = style.looks_of(study.grouping.methods)
        top = _top(study)
        drawn = [
            draw(figure.add_subplot(rows, columns, index + 1), study, panel, looks, top)
            for index, panel in enumerate(panels)
        ]
        return figure if any(drawn) else None


def _accuracy_panel(axes: Axes, study: Study, panel: str, looks: dict[str, style.Look], top: float) -> bool:
    names: list[LineName] = []
    groups = study.grouping.in_panel(panel)
    last = float(study.metrics["step"].max())
    for group in groups:
        curves = curves_of(study, group, ACCURACY)
        if curves is None:
            continue
        look = looks[group.method]
        draw_curves(axes, curves, look, carry=True, band=len(groups) <= MOST_BANDS)
        mean = curves.carried().mean()
        end = np.flatnonzero(~np.isnan(mean))[-1]
        names.append(LineName(group.method, float(curves.steps[end]), float(mean[end]), look))
    if not names:
        axes.set_axis_off()
        return False
    style.step_axis(axes, last)
    style.percent_axis(axes, 0.0, top)
    level = _starting_line(axes, study, panel)
    if level is not None:
        names.append(LineName("starting policy", axes.get_xlim()[1], level, None))
    axes.set_xlabel("training step")
    axes.set_ylabel("held-out accuracy")
    style.panel_title(axes, panel)
    _name_lines(axes, names, top, last)
    return True


def draw_curves(
    axes: Axes,
    curves: Curves,
    look: style.Look,
    *,
    markers: bool = True,
    median: bool = False,
    carry: bool = False,
    band: bool = True,
) -> None:
    """Thin seeds, band and centre line of one method, and a cross where a seed died.

    carry: the centre and band count a seed that died at its last value instead of dropping it.
    """
    for row in curves.values:
        there = ~np.isnan(row)
        if curves.n > 1:
            axes.plot(
                curves.steps[there],
                row[there],
                color=look.color,
                linewidth=0.7,
                alpha=0.35,
                marker="." if there.sum() == 1 else None,
                zorder=2,
            )
    summed = curves.carried() if carry else curves
    limits = None if median or not band else summed.band()
    centre = summed.median() if median else summed.mean()
    shown = ~np.isnan(centre)
    if limits is not None:
        low, high = limits
        axes.fill_between(
            curves.steps[shown], low[shown], high[shown], color=look.color, alpha=0.13, linewidth=0, zorder=1
        )
    axes.plot(
        curves.steps[shown],
        centre[shown],
        color=look.color,
        linestyle=look.linestyle,
        linewidth=1.9,
        # A line through a single point is no line: without a marker nothing would be seen.
        marker=look.marker if markers or shown.sum() == 1 else None,
        markersize=look.size,
        markeredgecolor=style.PAPER,
        markeredgewidth=0.7,
        markevery=max(1, int(shown.sum()) // 12),
        zorder=4,
    )
    for step, value in curves.ends():
        axes.plot(step, value, marker="x", color=style.CROSS, markersize=7.5, markeredgewidth=2.0, zorder=6)


def _starting_line(axes: Axes, study: Study, panel: str) -> float | None:
    labels = [group.label for group in study.grouping.in_panel(panel)]
    start = study.runs.loc[study.runs["group"].isin(labels), "starting_accuracy"].dropna()
    if start.empty:
        return None
    level = float(start.mean())
    axes.axhline(level, color=style.SOFT_INK, linewidth=1.0, linestyle=(0, (2, 2)), zorder=3)
    return level


def _name_lines(axes: Axes, names: list[LineName], top: float, last: float) -> None:
    """Names to the right of the axes, beside the ends of their lines, moved apart where they would overlap."""
    place = axes.get_subplotspec()
    gap = 0.058 * top * (1.25 if place is not None and place.get_gridspec().nrows > 1 else 1.0)
    if len(names) > MOST_DIRECT_LABELS:
        gap = 0.04 * top
    heights = style.spread([name.value for name in names], gap, 0.02 * top, 0.98 * top)
    for name, height in zip(names, heights, strict=True):
        color = name.look.color if name.look else style.SOFT_INK
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
                markeredgecolor=style.PAPER,
                clip_on=False,
            )
        axes.text(
            last * 1.11,
            height,
            f"{name.text}  {100 * name.value:.1f}%",
            color=style.INK if name.look else style.SOFT_INK,
            fontsize=8.5,
            va="center",
            clip_on=False,
        )


def kl_spent(study: Study, group: Group) -> Curves | None:
    """KL from the rollout policies summed over training steps, per run of `group`; None when none recorded it.

    A step without updates records no KL and spends none: it counts as zero.
    """
    if KL not in study.metrics:
        return None
    metrics = study.metrics
    if UPDATES in metrics:
        idle = metrics[KL].isna() & (metrics[UPDATES] == 0)
        metrics = metrics.assign(**{KL: metrics[KL].mask(idle, 0.0)})
    divergence = curves_of(replace(study, metrics=metrics), group, KL, from_step=1)
    return None if divergence is None else cumulative(divergence)


def _kl_panel(axes: Axes, study: Study, panel: str, looks: dict[str, style.Look], top: float) -> bool:
    drawn = False
    handles = []
    for group in study.grouping.in_panel(panel):
        accuracy = curves_of(study, group, ACCURACY, from_step=1)
        spent = kl_spent(study, group)
        if accuracy is None or spent is None:
            continue
        look = looks[group.method]
        spent_rows = dict(zip(spent.run_ids, spent.values, strict=True))
        where = {step: index for index, step in enumerate(spent.steps)}
        columns = [where.get(step) for step in accuracy.steps]
        paired = np.full(accuracy.values.shape, np.nan)
        for i, run_id in enumerate(accuracy.run_ids):
            for j, column in enumerate(columns):
                if column is not None and run_id in spent_rows:
                    paired[i, j] = spent_rows[run_id][column]
        both = ~np.isnan(paired) & ~np.isnan(accuracy.values) & (paired > 0)
        if not both.any():
            continue
        drawn = True
        for i in range(accuracy.n):
            axes.plot(
                paired[i][both[i]],
                accuracy.values[i][both[i]],
                color=look.color,
                marker="." if both[i].sum() == 1 else None,
                linewidth=0.7,
                alpha=0.35,
                zorder=2,
            )
        kept = both.any(axis=0)
        x = np.array([np.median(paired[:, j][both[:, j]]) for j in np.flatnonzero(kept)])
        y = np.array([accuracy.values[:, j][both[:, j]].mean() for j in np.flatnonzero(kept)])
        (line,) = axes.plot(
            x,
            y,
            color=look.color,
            linestyle=look.linestyle,
            linewidth=1.9,
            marker=look.marker,
            markersize=look.size,
            markeredgecolor=style.PAPER,
            markeredgewidth=0.7,
            label=group.method,
            zorder=4,
        )
        handles.append(line)
        for i, died in enumerate(accuracy.died):
            there = np.flatnonzero(both[i])
            if died and len(there):
                axes.plot(
                    paired[i, there[-1]],
                    accuracy.values[i, there[-1]],
                    marker="x",
                    color=style.CROSS,
                    markersize=7.5,
                    markeredgewidth=2.0,
                    zorder=6,
                )
    if not drawn:
        axes.set_axis_off()
        return False
    axes.set_xscale("log")
    shown = np.concatenate([np.asarray(line.get_xdata(), dtype=np.float64) for line in handles])
    floor = style.log_floor(shown)
    if shown.min() < floor:
        axes.set_xlim(left=floor)
    style.log_axis(axes.xaxis)
    style.percent_axis(axes, 0.0, top)
    level = _starting_line(axes, study, panel)
    if level is not None:
        start = Line2D([], [], color=style.SOFT_INK, linewidth=1.0, linestyle=(0, (2, 2)))
        start.set_label(f"starting policy {100 * level:.1f}%")
        handles.append(start)
    axes.set_xlabel("KL spent so far (nats per token)")
    axes.set_ylabel("held-out accuracy")
    style.panel_title(axes, panel)
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=2.6)
    return True


def _top(study: Study) -> float:
    if ACCURACY not in study.metrics:
        return 1.0
    highest = float(study.metrics[ACCURACY].max())
    return min(1.0, max(0.05, 1.12 * highest))

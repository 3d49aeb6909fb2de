"""Held-out accuracy against the KL divergence spent to reach it, one axes per panel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lab.analysis.figures import CannotDraw, figure, style
from cppo_lab.analysis.figures.curves import Curves, curves_of
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.lines import axes_of_panels, cross, starting_line, thin_line
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import ACCURACY, KL

UPDATES = "train/updates"


@figure(
    "accuracy_against_kl",
    title="Accuracy against KL spent",
    section="stability",
    caption="Held-out accuracy against the cumulative KL divergence from the rollout policies (k3 estimate): what"
    " each method gained for the distance it moved. Thick lines plot the mean accuracy against the median"
    " KL over seeds; thin lines are single seeds. A step without updates adds no KL, and an accuracy "
    "measured before any was spent has no place on the logarithmic axis.",
    about="held-out accuracy against the cumulative KL from the rollout policies",
    needs=(ACCURACY, KL),
    place=2,
)
def draw(data: FigureData) -> Figure:
    """Accuracy against cumulative k3 KL, one line per method and thin lines per run."""
    sheet, panels = axes_of_panels(data)
    drawn = [_panel(axes, panel) for axes, panel in panels]
    if not any(drawn):
        raise CannotDraw(f"no run recorded both {ACCURACY} and {KL}")
    return sheet


def kl_spent(study: Study, group: Group) -> Curves | None:
    """KL from the rollout policies summed over training steps, per run of `group`; None when none recorded it.

    A step without updates records no KL and spends none: it counts as zero.
    """
    metrics = study.metrics
    if KL in metrics and UPDATES in metrics:
        idle = metrics[KL].isna() & (metrics[UPDATES] == 0)
        metrics = metrics.assign(**{KL: metrics[KL].mask(idle, 0.0)})
    spent = curves_of(replace(study, metrics=metrics), group, KL, from_step=1)
    return None if spent is None else spent.cumulative()


def _panel(axes: Axes, data: FigureData) -> bool:
    """Whether there was anything to draw."""
    handles, drawn = [], []
    for group in data.groups:
        accuracy, kl = data.curves(group, ACCURACY), kl_spent(data.study, group)
        if accuracy is None or kl is None:
            continue
        spent = kl.positive().table.reindex_like(accuracy.table)
        reached = accuracy.table.where(spent.notna())
        spent = spent.where(reached.notna()).dropna(axis=1, how="all")
        reached = reached[spent.columns]
        if spent.empty:
            continue
        look = data.looks[group.method]
        for run_id in spent.index:
            x, y = spent.loc[run_id].dropna(), reached.loc[run_id].dropna()
            thin_line(axes, x.to_numpy(), y.to_numpy(), look)
            if accuracy.failed[run_id] and len(x):
                cross(axes, x.iloc[-1], y.iloc[-1])
        options = look.line() | {"label": group.method, "zorder": 4}
        handles += axes.plot(spent.median(), reached.mean(), **options)
        drawn.append(spent.median())
    if not drawn:
        axes.set_axis_off()
        return False
    _finish(axes, data, pd.concat(drawn).to_numpy(dtype=np.float64))
    level = starting_line(axes, data)
    if level is not None:
        handles.append(style.starting_policy_handle(f"starting policy {100 * level:.1f}%"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=2.6)
    return True


def _finish(axes: Axes, data: FigureData, shown: np.ndarray) -> None:
    axes.set_xscale("log")
    floor = style.log_floor(shown)
    if shown.min() < floor:
        axes.set_xlim(left=floor)
    style.log_axis(axes.xaxis)
    style.percent_axis(axes, 0.0, data.top)
    axes.set_xlabel("cumulative KL (nats per token)")
    axes.set_ylabel("held-out accuracy")
    style.panel_title(axes, data.panel or "")

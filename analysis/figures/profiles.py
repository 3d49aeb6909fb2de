"""Where in a response the policy moved away from the rollout policy, and where tokens were masked."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.load.study import Study

COLUMNS = (
    ("divergence_mean", "Mean divergence", False),
    ("divergence_top_decile", "Divergence, top decile", False),
    ("masked_share", "Tokens masked", True),
    ("induced_threshold_mean", "Threshold on D in force", False),
)


def position_profile(study: Study, panel: str) -> Figure | None:
    """Divergence, its tail, masked share and threshold by relative position; None without such profiles."""
    labels = [group.label for group in study.grouping.in_panel(panel)]
    runs = study.runs[study.runs["group"].isin(labels)]
    profiles = study.profiles[
        study.profiles["run_id"].isin(runs.index) & (study.profiles["kind"] == "relative")
    ]
    there = [column for column in COLUMNS if not profiles[column[0]].dropna().empty]
    if profiles.empty or not there:
        return None
    looks = style.looks_of(study.grouping.methods)
    groups = [
        group
        for group in study.grouping.in_panel(panel)
        if profiles["run_id"].isin(runs.index[runs["group"] == group.label]).any()
    ]
    with style.house_style():
        figure = style.sheet(2.9 * len(there) + 0.6, 3.1)
        for index, (column, title, percent) in enumerate(there):
            axes = figure.add_subplot(1, len(there), index + 1)
            high = 0.0
            for group in groups:
                members = runs.index[runs["group"] == group.label]
                x, y = weighted_profile(profiles[profiles["run_id"].isin(members)], column)
                if not len(x):
                    continue
                look = looks[group.method]
                axes.plot(
                    x,
                    y,
                    color=look.color,
                    linestyle=look.linestyle,
                    linewidth=1.8,
                    marker=look.marker,
                    markevery=4,
                    markersize=4.5,
                    markeredgecolor=style.PAPER,
                    markeredgewidth=0.6,
                )
                high = max(high, float(y.max()))
            axes.set_title(title)
            axes.set_xlim(-0.02, 1.02)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
            axes.set_xlabel("position in response")
            if percent:
                style.percent_axis(axes, 0.0, min(1.0, max(0.005, 1.12 * high)))
            else:
                axes.set_ylim(0.0, 1.12 * high if high > 0 else 1.0)
                axes.yaxis.set_major_locator(MaxNLocator(5))
        style.name_methods(figure, style.line_handles([group.method for group in groups], looks))
        return figure


def weighted_profile(profiles: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Bin centres [bins] and mean of `column` over runs and steps [bins], weighted by tokens in the bin."""
    rows = profiles.dropna(subset=[column])
    rows = rows[rows["count"].fillna(0) > 0]
    if rows.empty:
        return np.array([]), np.array([])
    weighted = rows.assign(weighted=rows[column] * rows["count"])
    sums = weighted.groupby(["low", "high"], sort=True)[["weighted", "count"]].sum().reset_index()
    centres = (sums["low"] + sums["high"]).to_numpy(dtype=np.float64) / 2
    return centres, (sums["weighted"] / sums["count"]).to_numpy(dtype=np.float64)

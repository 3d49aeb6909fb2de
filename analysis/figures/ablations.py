"""The paper's ablation panels (Figures 5 and 6): CPPO beside its parts and its variants, and DPPO under all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.accuracy import draw_curves
from cppo_lab.analysis.figures.curves import curves_of
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import ACCURACY

COLUMNS = 3
REFERENCES = ("dppo_topk_tv", "dppo_tv")


@dataclass(frozen=True)
class Ablation:
    """One panel of the paper and the methods it compares: at least two of them, or, `by_setting`, one of them under
    at least two settings.
    """

    item: str
    title: str
    methods: tuple[str, ...]
    by_setting: bool = False


ABLATIONS = (
    Ablation("Figure 5, left", "Each mechanism", ("cppo", "cppo_no_budget", "cppo_no_weights")),
    Ablation("Figure 5, middle", "Order of the weights", ("cppo_no_budget", "cppo_shuffled")),
    Ablation("Figure 5, right", "Hard mask or soft gate", ("cppo", "cppo_soft")),
    Ablation("Figure 6, left", "Budget and weights", ("cppo", "cppo_fixed_budget"), by_setting=True),
    Ablation("Figure 6, middle", "KL or TV", ("cppo", "cppo_kl")),
    Ablation("Figure 6, right", "Binary or top-K", ("cppo", "cppo_binary")),
)


def drawable(study: Study, panel: str) -> list[Ablation]:
    """The ablations that `panel` has runs for."""
    there = _recorded(study, panel)
    return [ablation for ablation in ABLATIONS if len(_members(there, ablation)) >= 2]


def missing(study: Study, panel: str) -> list[str]:
    """The ablations that cannot be drawn, each with the methods that it compares."""
    there = drawable(study, panel)
    return [
        f"{ablation.item} ({' or '.join(ablation.methods)} under two settings)"
        if ablation.by_setting
        else f"{ablation.item} ({', '.join(ablation.methods)})"
        for ablation in ABLATIONS
        if ablation not in there
    ]


def ablation_panels(study: Study, panel: str) -> Figure | None:
    """Accuracy against steps for every ablation there are runs for; None where there is none."""
    ablations = drawable(study, panel)
    if not ablations:
        return None
    looks = style.looks_of(study.grouping.methods)
    columns = min(COLUMNS, len(ablations))
    rows = math.ceil(len(ablations) / columns)
    last = float(study.metrics["step"].max())
    top = min(1.0, max(0.05, 1.12 * float(study.metrics[ACCURACY].max())))
    with style.house_style():
        figure = style.sheet(3.6 * columns + 0.3, 3.2 * rows)
        for place, ablation in enumerate(ablations):
            axes = figure.add_subplot(rows, columns, place + 1)
            _panel(axes, study, _with_reference(study, panel, ablation), looks)
            axes.set_title(ablation.title)
            style.step_axis(axes, last)
            style.percent_axis(axes, 0.0, top)
            axes.set_xlabel("training step")
            if place % columns == 0:
                axes.set_ylabel("held-out accuracy")
        return figure


def _panel(axes: Axes, study: Study, groups: list[Group], looks: dict[str, style.Look]) -> None:
    handles: list[Line2D] = []
    for group in groups:
        curves = curves_of(study, group, ACCURACY)
        if curves is None:
            continue
        draw_curves(axes, curves, looks[group.method], carry=True)
        mean = curves.carried().mean()
        end = mean[np.flatnonzero(~np.isnan(mean))[-1]]
        (handle,) = style.line_handles([group.method], looks)
        handle.set_label(f"{group.method}  {100 * end:.1f}%")
        handles.append(handle)
    axes.legend(handles=handles, loc="lower right", handlelength=2.2, labelspacing=0.35)


def _recorded(study: Study, panel: str) -> list[tuple[str, Group]]:
    """(algorithm, group) of everything in `panel` that recorded an accuracy after the starting policy."""
    out = []
    for group in study.grouping.in_panel(panel):
        if curves_of(study, group, ACCURACY, from_step=1) is None:
            continue
        runs = study.runs[study.runs["group"] == group.label]
        names = [str(name) for name in runs.get("config.algo.name", pd.Series(dtype=str)).dropna()]
        out.append((names[0] if names else group.method, group))
    return out


def _members(there: list[tuple[str, Group]], ablation: Ablation) -> list[Group]:
    """The groups that the ablation compares; none where they do not differ in what it is about."""
    members = [(algorithm, group) for algorithm, group in there if algorithm in ablation.methods]
    if not ablation.by_setting and len({algorithm for algorithm, _ in members}) < 2:
        return []
    return [group for _, group in members]


def _with_reference(study: Study, panel: str, ablation: Ablation) -> list[Group]:
    there = _recorded(study, panel)
    references = [group for name in REFERENCES for algorithm, group in there if algorithm == name]
    return [*_members(there, ablation), *references[:1]]

"""The paper's ablation panels (Figures 5 and 6): CPPO against its parts and variants, with DPPO for reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cppo_lab.analysis.figures import CannotDraw, Drawing, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.lines import draw_curves
from cppo_lab.analysis.grouping import Group
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


@figure(
    "ablations",
    title="Ablations",
    section="mechanisms",
    caption="Held-out accuracy over training for the paper's ablations, with DPPO for reference where it ran. "
    "Lines are means over seeds; {band} ({seeds}).",
    about="CPPO against its parts and variants, with DPPO for reference",
    paper="Figures 5 and 6 of the CPPO paper",
    per_panel=True,
    place=7,
)
def draw(data: FigureData) -> Drawing:
    """Accuracy over training for every ablation there are runs for."""
    ablations = drawable(data)
    absent = "; ".join(missing(data))
    if not ablations:
        raise CannotDraw(
            "these runs hold no ablation of CPPO. An ablation needs, in one panel, the methods of one of the paper's "
            f"comparisons: {absent}"
        )
    sheet, grid = style.small_multiples(len(ablations), COLUMNS, 3.6, 3.2, (0.3, 0.0))
    for place, (axes, ablation) in enumerate(zip(grid, ablations, strict=True)):
        _panel(axes, data, _with_reference(data, ablation))
        axes.set_title(ablation.title)
        style.step_axis(axes, data.last_step)
        style.percent_axis(axes, 0.0, data.top)
        axes.set_xlabel("training step")
        if place % COLUMNS == 0:
            axes.set_ylabel("held-out accuracy")
    return Drawing(sheet, f"Not drawn for lack of runs: {absent}." if absent else "")


def drawable(data: FigureData) -> list[Ablation]:
    """The ablations that there are runs for."""
    there = _recorded(data)
    return [ablation for ablation in ABLATIONS if len(_members(there, ablation)) >= 2]


def missing(data: FigureData) -> list[str]:
    """The ablations that cannot be drawn, each with the methods that it compares."""
    there = drawable(data)
    return [
        f"{ablation.item} ({' or '.join(ablation.methods)} under two settings)"
        if ablation.by_setting
        else f"{ablation.item} ({', '.join(ablation.methods)})"
        for ablation in ABLATIONS
        if ablation not in there
    ]


def _panel(axes: Axes, data: FigureData, groups: list[Group]) -> None:
    handles: list[Line2D] = []
    for group in groups:
        curves = data.curves(group, ACCURACY, from_step=0)
        if curves is None:
            continue
        draw_curves(axes, curves, data.looks[group.method], carry=True)
        mean = curves.carried().mean()
        end = mean[np.flatnonzero(~np.isnan(mean))[-1]]
        (handle,) = style.line_handles([group.method], data.looks)
        handle.set_label(f"{group.method}  {100 * end:.1f}%")
        handles.append(handle)
    axes.legend(handles=handles, loc="lower right", handlelength=2.2, labelspacing=0.35)


def _recorded(data: FigureData) -> list[tuple[str, Group]]:
    """(algorithm, group) of everything that recorded an accuracy after the starting policy."""
    out = []
    for group in data.groups:
        if data.curves(group, ACCURACY) is None:
            continue
        runs = data.study.runs[data.study.runs["group"] == group.label]
        names = [str(name) for name in runs.get("config.algo.name", pd.Series(dtype=str)).dropna()]
        out.append((names[0] if names else group.method, group))
    return out


def _members(there: list[tuple[str, Group]], ablation: Ablation) -> list[Group]:
    """The groups that the ablation compares; none where they do not differ in what it is about."""
    members = [(algorithm, group) for algorithm, group in there if algorithm in ablation.methods]
    if not ablation.by_setting and len({algorithm for algorithm, _ in members}) < 2:
        return []
    return [group for _, group in members]


def _with_reference(data: FigureData, ablation: Ablation) -> list[Group]:
    there = _recorded(data)
    references = [group for name in REFERENCES for algorithm, group in there if algorithm == name]
    return [*_members(there, ablation), *references[:1]]

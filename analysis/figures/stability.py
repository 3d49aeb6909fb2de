"""Small multiples of what tells a stable run from one that falls apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.accuracy import MOST_BANDS, draw_curves
from cppo_lab.analysis.figures.curves import Curves, curves_of
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import ACCURACY

# More points than this make a hatching of noise instead of a line in a small picture.
MOST_POINTS = 80
BY_THRESHOLD = "mask/share_threshold"
BY_BUDGET = "mask/share_budget"


@dataclass(frozen=True)
class Quantity:
    """One small axes: the metric, its title, and how its axis reads."""

    key: str
    title: str
    log: bool = False
    percent: bool = False
    from_step: int = 1


QUANTITIES = (
    Quantity("eval/heldout/accuracy", "Held-out accuracy", percent=True, from_step=0),
    Quantity("policy/k3_vs_rollout", "KL from rollout policy (k3, nats)", log=True),
    Quantity("policy/tv_vs_rollout", "TV from rollout policy"),
    Quantity("mask/share", "Tokens masked", percent=True),
    Quantity("policy/entropy", "Entropy (nats)"),
    Quantity("policy/ess_token_vs_rollout", "Effective sample size", percent=True),
    Quantity("train/grad_norm", "Gradient norm before clipping", log=True),
    Quantity("train/accuracy", "Accuracy of rollouts", percent=True),
    Quantity("rollout/length_mean", "Response length (tokens)"),
    Quantity("rollout/truncated_share", "Responses cut off", percent=True),
    Quantity("mismatch/logp_relative_of_sums", "Rollout log-prob error", log=True),
)


def recorded(study: Study, panel: str) -> list[Quantity]:
    """The quantities at least one method of `panel` recorded."""
    groups = study.grouping.in_panel(panel)
    return [
        quantity
        for quantity in QUANTITIES
        if any(curves_of(study, group, quantity.key, from_step=quantity.from_step) for group in groups)
    ]


def missing(study: Study, panel: str) -> list[str]:
    """Titles of the quantities no method of `panel` recorded, to be said in words."""
    there = recorded(study, panel)
    return [quantity.title for quantity in QUANTITIES if quantity not in there]


def stability(study: Study, panel: str) -> Figure | None:
    """Every recorded quantity of `panel` against steps, and masked tokens by reason; None without any."""
    quantities = recorded(study, panel)
    groups = study.grouping.in_panel(panel)
    reasons = masked_by_reason(study, groups)
    cells = len(quantities) + bool(reasons)
    if not quantities:
        return None
    columns = min(4, cells) if cells > 4 else cells
    rows = math.ceil(cells / columns)
    looks = style.looks_of(study.grouping.methods)
    last = float(study.metrics["step"].max())
    with style.house_style():
        figure = style.sheet(3.0 * columns, 2.45 * rows + 0.5)
        position = 0
        for quantity in quantities:
            position += 1
            axes = figure.add_subplot(rows, columns, position)
            _quantity(axes, study, groups, quantity, looks, last)
            if position + columns > cells:
                axes.set_xlabel("training step")
            if quantity.key == "mask/share" and reasons:
                position += 1
                _reasons(figure.add_subplot(rows, columns, position), reasons, looks)
        if reasons and "mask/share" not in {quantity.key for quantity in quantities}:
            _reasons(figure.add_subplot(rows, columns, cells), reasons, looks)
        handles = [_handle(group, looks) for group in groups]
        style.name_methods(figure, handles)
        return figure


def masked_by_reason(study: Study, groups: tuple[Group, ...]) -> list[tuple[str, float, float]]:
    """(method, share masked by threshold, share masked by budget), means over steps and seeds.

    Methods without either metric are left out; a missing one of the two counts as zero.
    """
    rows = []
    for group in groups:
        shares = [curves_of(study, group, key, from_step=1) for key in (BY_THRESHOLD, BY_BUDGET)]
        if any(shares):
            threshold, budget = (float(np.nanmean(c.values)) if c is not None else 0.0 for c in shares)
            rows.append((group.method, threshold, budget))
    return rows


def _quantity(
    axes: Axes,
    study: Study,
    groups: tuple[Group, ...],
    quantity: Quantity,
    looks: dict[str, style.Look],
    last: float,
) -> None:
    lows: list[float] = []
    highs: list[float] = []
    drawn: list[npt.NDArray[np.float64]] = []
    for group in groups:
        curves = curves_of(study, group, quantity.key, from_step=quantity.from_step)
        if curves is None:
            continue
        if quantity.log:
            curves = _positive(curves)
        curves = curves.binned(MOST_POINTS)
        draw_curves(
            axes,
            curves,
            looks[group.method],
            markers=False,
            median=quantity.log,
            carry=quantity.key == ACCURACY,
            band=len(groups) <= MOST_BANDS,
        )
        finite = curves.values[np.isfinite(curves.values)]
        if len(finite):
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
            drawn.append(finite)
    axes.set_title(quantity.title)
    style.step_axis(axes, last)
    if quantity.log and highs and max(highs) > 0:
        axes.set_yscale("log")
        floor = style.log_floor(np.concatenate(drawn))
        if min(lows) < floor:
            axes.set_ylim(bottom=floor)
        style.log_axis(axes.yaxis)
    elif quantity.percent and highs:
        style.percent_axis(axes, 0.0, min(1.0, max(0.01, 1.12 * max(highs))))
    elif highs:
        low = 0.0 if min(lows) >= 0 else min(lows)
        axes.set_ylim(low, max(highs) * 1.1 if max(highs) > 0 else 1.0)
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _reasons(axes: Axes, reasons: list[tuple[str, float, float]], looks: dict[str, style.Look]) -> None:
    for row, (method, threshold, budget) in enumerate(reasons):
        color = looks[method].color
        axes.barh(row, threshold, height=0.62, color=color, linewidth=0)
        axes.barh(
            row,
            budget,
            left=threshold,
            height=0.62,
            facecolor=style.PAPER,
            edgecolor=color,
            hatch="//////",
            linewidth=0.9,
        )
        axes.annotate(
            f"{100 * (threshold + budget):.1f}%",
            xy=(threshold + budget, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    total = max((threshold + budget for _, threshold, budget in reasons), default=0.0)
    axes.set_xlim(0, max(0.002, 1.3 * total))
    axes.set_ylim(max(3, len(reasons)) - 0.4, -1.35)
    axes.set_yticks(range(len(reasons)), [method for method, _, _ in reasons])
    axes.tick_params(axis="y", labelcolor=style.INK)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.percent_label(value, 1.3 * total)))
    axes.set_title("Masked, by reason (mean)")
    axes.legend(
        handles=[
            Patch(facecolor=style.SOFT_INK, linewidth=0, label="threshold"),
            Patch(facecolor=style.PAPER, edgecolor=style.SOFT_INK, hatch="//////", label="budget"),
        ],
        loc="upper right",
        ncols=2,
        fontsize=7.5,
        handlelength=1.4,
        columnspacing=1.0,
        borderaxespad=0.1,
    )


def _positive(curves: Curves) -> Curves:
    return Curves(
        curves.steps, np.where(curves.values > 0, curves.values, np.nan), curves.run_ids, curves.died
    )


def _handle(group: Group, looks: dict[str, style.Look]) -> Line2D:
    look = looks[group.method]
    return Line2D([], [], color=look.color, linestyle=look.linestyle, linewidth=2.2, label=group.method)

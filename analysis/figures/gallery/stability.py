"""Training metrics over steps, as small multiples: what tells a stable run from one that collapses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cppo_lab.analysis.figures import CannotDraw, Drawing, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.lines import MOST_BANDS, MOST_POINTS, draw_curves
from cppo_lab.analysis.figures.looks import INK, PAPER, SOFT_INK, Look
from cppo_lab.analysis.formatting import listed
from cppo_lab.analysis.run_table import ACCURACY

BY_THRESHOLD = "mask/share_threshold"
BY_BUDGET = "mask/share_budget"
HATCH = "//////"


@dataclass(frozen=True)
class Quantity:
    """One small axes: the metric, its title, and how its axis reads."""

    key: str
    title: str
    log: bool = False
    percent: bool = False
    from_step: int = 1


QUANTITIES = (
    Quantity(ACCURACY, "Held-out accuracy", percent=True, from_step=0),
    Quantity("policy/k3_vs_rollout", "KL from rollout policy (k3, nats)", log=True),
    Quantity("policy/tv_vs_rollout", "TV from rollout policy"),
    Quantity("mask/share", "Tokens masked", percent=True),
    Quantity("policy/entropy", "Entropy (nats)"),
    Quantity("policy/ess_token_vs_rollout", "Effective sample size", percent=True),
    Quantity("train/grad_norm", "Gradient norm before clipping", log=True),
    Quantity("train/accuracy", "Accuracy of rollouts", percent=True),
    Quantity("rollout/length_mean", "Response length (tokens)"),
    Quantity("rollout/truncated_share", "Responses truncated", percent=True),
    Quantity("mismatch/logp_relative_of_sums", "Rollout log-prob error", log=True),
)


@figure(
    "stability",
    title="Training metrics",
    section="stability",
    caption="Training metrics over steps. Lines are means over seeds (medians on logarithmic axes, where a few "
    "rare tokens dominate a mean), thin lines single seeds. On linear axes, {band} ({seeds}). A "
    "logarithmic axis starts at most three decades below the median of its values; smaller ones are below"
    " it. Masked by reason: means over steps and seeds.{failures}",
    about="accuracy, KL, TV, masking and its reasons, entropy, effective sample size, gradient norm, rollouts "
    "and log-prob error over training",
    paper="Figures 8 to 11 of the CPPO paper",
    per_panel=True,
    place=1,
)
def draw(data: FigureData) -> Drawing:
    """One axes per metric that was recorded, and one of the masked tokens by reason."""
    quantities = [
        quantity
        for quantity in QUANTITIES
        if any(data.curves(group, quantity.key, from_step=quantity.from_step) for group in data.groups)
    ]
    if not quantities:
        raise CannotDraw("no run recorded any of its metrics")
    reasons = masked_by_reason(data)
    cells: list[Quantity | None] = [*quantities]
    if reasons:
        masked = [place for place, quantity in enumerate(quantities) if quantity.key == "mask/share"]
        cells.insert(masked[0] + 1 if masked else len(cells), None)
    columns = min(4, len(cells))
    sheet, grid = style.small_multiples(len(cells), columns, 3.0, 2.45, (0.0, 0.5))
    for place, (axes, quantity) in enumerate(zip(grid, cells, strict=True)):
        if quantity is None:
            _reasons(axes, reasons, data.looks)
            continue
        _quantity(axes, data, quantity)
        if place + columns >= len(cells):
            axes.set_xlabel("training step")
    style.name_methods(sheet, [_handle(group.method, data.looks) for group in data.groups])
    return Drawing(sheet, _note(data, quantities))


def masked_by_reason(data: FigureData) -> list[tuple[str, float, float]]:
    """(method, share masked by threshold, share masked by budget), means over steps and seeds.

    Methods without either metric are left out; a missing one of the two counts as zero.
    """
    rows = []
    for group in data.groups:
        shares = [data.curves(group, key) for key in (BY_THRESHOLD, BY_BUDGET)]
        if any(shares):
            threshold, budget = (float(np.nanmean(c.values)) if c is not None else 0.0 for c in shares)
            rows.append((group.method, threshold, budget))
    return rows


def _note(data: FigureData, drawn: list[Quantity]) -> str:
    said = []
    if data.study.metrics["step"].nunique() > MOST_POINTS:
        said.append(f"Neighbouring steps are pooled by their median into {MOST_POINTS} points.")
    absent = [quantity.title for quantity in QUANTITIES if quantity not in drawn]
    if absent:
        said.append(f"Not recorded by any run: {listed(absent)}.")
    return " ".join(said)


def _quantity(axes: Axes, data: FigureData, quantity: Quantity) -> None:
    drawn = [np.empty(0)]
    for group in data.groups:
        curves = data.curves(group, quantity.key, from_step=quantity.from_step)
        if curves is None:
            continue
        curves = (curves.positive() if quantity.log else curves).binned(MOST_POINTS)
        draw_curves(
            axes,
            curves,
            data.looks[group.method],
            markers=False,
            median=quantity.log,
            carry=quantity.key == ACCURACY,
            band=len(data.groups) <= MOST_BANDS,
        )
        drawn.append(curves.values[np.isfinite(curves.values)])
    axes.set_title(quantity.title)
    style.step_axis(axes, data.last_step)
    values = np.concatenate(drawn)
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if quantity.log:
        axes.set_yscale("log")
        floor = style.log_floor(values)
        if low < floor:
            axes.set_ylim(bottom=floor)
        style.log_axis(axes.yaxis)
    elif quantity.percent:
        style.percent_axis(axes, 0.0, min(1.0, max(0.01, 1.12 * high)))
    else:
        axes.set_ylim(min(0.0, low), high * 1.1 if high > 0 else 1.0)
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _reasons(axes: Axes, reasons: list[tuple[str, float, float]], looks: dict[str, Look]) -> None:
    for row, (method, threshold, budget) in enumerate(reasons):
        color = looks[method].color
        hatched: dict[str, Any] = {"facecolor": PAPER, "edgecolor": color, "hatch": HATCH, "linewidth": 0.9}
        axes.barh(row, threshold, height=0.62, color=color, linewidth=0)
        axes.barh(row, budget, left=threshold, height=0.62, **hatched)
        axes.annotate(
            f"{100 * (threshold + budget):.1f}%",
            xy=(threshold + budget, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    total = max(threshold + budget for _, threshold, budget in reasons)
    axes.set_xlim(0, max(0.002, 1.3 * total))
    axes.set_ylim(max(3, len(reasons)) - 0.4, -1.35)
    axes.set_yticks(range(len(reasons)), [method for method, _, _ in reasons])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.percent_label(value, 1.3 * total)))
    axes.set_title("Masked, by reason (mean)")
    axes.legend(
        handles=[
            Patch(facecolor=SOFT_INK, linewidth=0, label="threshold"),
            Patch(facecolor=PAPER, edgecolor=SOFT_INK, hatch=HATCH, label="budget"),
        ],
        loc="upper right",
        ncols=2,
        fontsize=7.5,
        handlelength=1.4,
        columnspacing=1.0,
        borderaxespad=0.1,
    )


def _handle(method: str, looks: dict[str, Look]) -> Line2D:
    look = looks[method]
    return Line2D([], [], color=look.color, linestyle=look.linestyle, linewidth=2.2, label=method)

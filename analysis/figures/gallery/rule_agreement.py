"""Do rules mask the same tokens? Each is applied to the tokens that one method's runs trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lab.analysis.figures import CannotDraw, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.looks import INK, SOFT_INK
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.run_record import read_json_lines
from cppo_lab.analysis.load.study import Study

# Of a colour map from light to dark: cells beyond this share are dark and take light text.
DARK_FROM = 0.55
LIGHT_TEXT, DARK_TEXT = "#ffffff", "#1a1a1a"


@dataclass(frozen=True)
class Overlap:
    """Counts summed over steps and seeds: of `tokens` tokens, those that each two rules both mask [rules, rules]."""

    rules: tuple[str, ...]
    tokens: int
    both: npt.NDArray[np.int64]

    @property
    def masked_share(self) -> npt.NDArray[np.float64]:
        """Share of the tokens that each rule masks, [rules]."""
        return np.asarray(self.both.diagonal() / self.tokens, dtype=np.float64)

    @property
    def jaccard(self) -> npt.NDArray[np.float64]:
        """Tokens that two rules both mask, as a share of those that either masks, [rules, rules]; NaN for none."""
        masked = self.both.diagonal()
        either = masked[:, None] + masked[None, :] - self.both
        out = np.full(self.both.shape, np.nan)
        return np.asarray(np.divide(self.both, either, out=out, where=either > 0), dtype=np.float64)


@figure(
    "rule_agreement",
    title="Do rules mask the same tokens?",
    section="mechanisms",
    caption="In the last epoch of every evaluated step, one rule of each family is applied to the same tokens "
    "that the method trained on, with the thresholds of its paper and relative to the rollout policy. Off"
    " the diagonal: of the tokens that either rule masks, the share that both mask (Jaccard index). On "
    "the diagonal: the share of all tokens that the rule masks. TRM masks whole responses. The first row "
    "is the method itself.",
    about="mask overlap: whether rules mask the same tokens, on the tokens that one method trained on",
    per_panel=True,
    place=6,
)
def draw(data: FigureData) -> Figure:
    """One matrix per method, on that method's own tokens."""
    found = {group: seen for group in data.groups if (seen := overlap(data.study, group)) is not None}
    if not found:
        raise CannotDraw("no run recorded it (agreement.jsonl), or no token was trained on")
    sheet, grid = style.small_multiples(len(found), 3, 3.4, 3.3)
    for axes, (group, seen) in zip(grid, found.items(), strict=True):
        _matrix(axes, group, seen)
    return sheet


def overlap(study: Study, group: Group) -> Overlap | None:
    """Mask overlap of the rules on the tokens of `group`'s runs; None where no run recorded it."""
    total: Overlap | None = None
    for folder in study.runs.loc[study.runs["group"] == group.label, "folder"]:
        for row in read_json_lines(Path(folder) / "agreement.jsonl")[0]:
            if not row.get("tokens"):
                continue
            found = Overlap(tuple(row["rules"]), int(row["tokens"]), np.array(row["both"], dtype=np.int64))
            if total is None:
                total = found
            elif found.rules == total.rules:
                total = Overlap(total.rules, total.tokens + found.tokens, total.both + found.both)
    return total


def _percent(share: float) -> str:
    return style.percent_label(share, share)


def _matrix(axes: Axes, group: Group, seen: Overlap) -> None:
    shares, size = seen.jaccard, len(seen.rules)
    edges = np.arange(size + 1) - 0.5
    off_diagonal = np.ma.masked_invalid(np.where(np.eye(size, dtype=bool), np.nan, shares))
    axes.pcolormesh(edges, edges, off_diagonal, vmin=0.0, vmax=1.0, cmap=style.SEQUENTIAL, rasterized=True)
    for row, column in np.ndindex(shares.shape):
        share = float(shares[row, column])
        if row == column:
            text, color, weight = _percent(float(seen.masked_share[row])), INK, "bold"
        elif math.isnan(share):
            text, color, weight = "–", SOFT_INK, "normal"
        else:
            text, color, weight = _percent(share), LIGHT_TEXT if share > DARK_FROM else DARK_TEXT, "normal"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color, fontweight=weight)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_xticks(range(size), seen.rules, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), seen.rules)
    axes.tick_params(length=0, labelcolor=INK)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_aspect("equal")
    axes.set_title(f"on the tokens of {group.method}")

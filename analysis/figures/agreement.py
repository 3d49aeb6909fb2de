"""Do rules mask the same tokens? Each was asked about the tokens that one method's runs trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.run_record import read_json_lines
from cppo_lab.analysis.load.study import Study

COLUMNS = 3
# Of a colour map from light to dark: cells beyond this share are dark and take light text.
DARK_FROM = 0.55
LIGHT_TEXT = "#ffffff"


@dataclass(frozen=True)
class Overlap:
    """Counts summed over steps and seeds: `masked` [rules] and `both` [rules, rules] of `tokens` tokens."""

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


def overlap(study: Study, group: Group) -> Overlap | None:
    """What the rules made of the tokens of `group`'s runs; None where no run recorded it."""
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


def rule_agreement(study: Study, panel: str) -> Figure | None:
    """One matrix of agreement per method, on that method's own tokens; None where nothing was recorded."""
    found = {
        group: seen for group in study.grouping.in_panel(panel) if (seen := overlap(study, group)) is not None
    }
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    with style.house_style():
        figure = style.sheet(3.4 * columns, 3.3 * rows)
        for place, (group, seen) in enumerate(found.items()):
            _matrix(figure.add_subplot(rows, columns, place + 1), group, seen)
        return figure


def _percent(share: float) -> str:
    return style.percent_label(share, share)


def _matrix(axes: Axes, group: Group, seen: Overlap) -> None:
    shares, size = seen.jaccard, len(seen.rules)
    edges = np.arange(size + 1) - 0.5
    off_diagonal = np.where(np.eye(size, dtype=bool), np.nan, shares)
    axes.pcolormesh(
        edges,
        edges,
        np.ma.masked_invalid(off_diagonal),
        vmin=0.0,
        vmax=1.0,
        cmap=style.SEQUENTIAL,
        rasterized=True,
    )
    for row in range(size):
        for column in range(size):
            if row == column:
                text, color, weight = _percent(seen.masked_share[row]), style.INK, "bold"
            elif math.isnan(shares[row, column]):
                text, color, weight = "–", style.SOFT_INK, "normal"
            else:
                text, weight = _percent(shares[row, column]), "normal"
                color = LIGHT_TEXT if shares[row, column] > DARK_FROM else "#1a1a1a"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color, fontweight=weight)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_xticks(range(size), seen.rules, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), seen.rules)
    axes.tick_params(length=0, labelcolor=style.INK)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_aspect("equal")
    axes.set_title(f"on the tokens of {group.method}")

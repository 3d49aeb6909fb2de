"""Colours, and how each method looks: the same in every figure of every report.

A method's colour, marker and line come from a table by its name, or from a hash of its name. The colours are those of
Okabe and Ito, which people with a colour deficiency can tell apart; marker and line repeat the message in grey print.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

INK = "#1c2024"
SOFT_INK = "#5d666f"
RULE = "#d5d9de"
PAPER = "#fefefd"

# Every colour a figure may use, with its counterpart on a dark page (the page swaps them in the inline SVG).
DARK = {
    INK: "#e7e9ec",
    SOFT_INK: "#a3abb4",
    RULE: "#3a4149",
    PAPER: "#16191d",
    "#d55e00": "#f0803c",
    "#e69f00": "#f0b429",
    "#0072b2": "#4aa8e8",
    "#009e73": "#2cc79a",
    "#cc79a7": "#e39cc2",
    "#56b4e9": "#8fd0f7",
    "#7a5195": "#b58fd6",
    "#8c6d1f": "#c9a64a",
    "#4d4d4d": "#b9bec4",
    "#a50f15": "#ff7b72",
    "#3b7d23": "#86c96a",
    "#00707a": "#3fb8c4",
}
CROSS = "#a50f15"


@dataclass(frozen=True)
class Look:
    """How one method is drawn everywhere."""

    color: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def size(self) -> float:
        """Marker size in points; crosses and stars look smaller than filled shapes of the same size."""
        return 7.0 if self.marker in "XP" else 5.4

    def line(self, points: int = 1) -> dict[str, Any]:
        """Options of `Axes.plot` for the main line of a method, with a dozen markers along `points` points."""
        return {
            "color": self.color,
            "linestyle": self.linestyle,
            "linewidth": 1.9,
            "marker": self.marker,
            "markersize": self.size,
            "markeredgecolor": PAPER,
            "markeredgewidth": 0.7,
            "markevery": max(1, points // 12),
        }

    @property
    def linestyle(self) -> tuple[float, tuple[float, ...]] | Literal["-"]:
        return (0.0, self.dashes) if self.dashes else "-"


SOLID: tuple[float, ...] = ()
DASHED = (4.0, 1.6)
DOTTED = (1.2, 1.6)
DASH_DOT = (5.0, 1.5, 1.2, 1.5)

# Kin share a colour: policy gradients orange-red, ratio clipping yellow, DPPO blue. Methods that one of the paper's
# figures sets side by side do not: CPPO is green, and its variants differ from it.
LOOKS = {
    "pg": Look("#d55e00", "X", SOLID),
    "reinforce": Look("#d55e00", "<", DASHED),
    "reinforce_pp": Look("#d55e00", ">", DASH_DOT),
    "reinforce_pp_baseline": Look("#d55e00", "d", DOTTED),
    "rloo": Look("#4d4d4d", "v", SOLID),
    "ppo": Look("#8c6d1f", "v", SOLID),
    "grpo": Look("#e69f00", "s", SOLID),
    "grpo_tis": Look("#e69f00", "P", DASH_DOT),
    "dapo": Look("#e69f00", "D", DASHED),
    "dr_grpo": Look("#e69f00", "p", DOTTED),
    "icepop": Look("#8c6d1f", "D", DASHED),
    "dppo_tv": Look("#0072b2", "^", SOLID),
    "dppo_kl": Look("#0072b2", "v", DASHED),
    "dppo_topk_tv": Look("#56b4e9", "^", SOLID),
    "dppo_topk_kl": Look("#56b4e9", "v", DASHED),
    "drpo": Look("#56b4e9", "d", DASH_DOT),
    "cppo": Look("#009e73", "o", SOLID),
    "cppo_binary": Look("#d55e00", "h", DASHED),
    "cppo_kl": Look("#7a5195", "p", DASH_DOT),
    "cppo_soft": Look("#d55e00", "D", DOTTED),
    "cppo_fixed_budget": Look("#d55e00", "o", SOLID),
    "cppo_larger_budget": Look("#d55e00", "v", DASH_DOT),
    "cppo_relative_budget": Look("#e69f00", "^", DOTTED),
    "cppo_lower_floor": Look("#7a5195", "<", DASHED),
    "cppo_no_budget": Look("#7a5195", "h", DASHED),
    "cppo_no_weights": Look("#d55e00", "p", DASH_DOT),
    "cppo_shuffled": Look("#3b7d23", "d", DOTTED),
    "cispo": Look("#cc79a7", "D", SOLID),
    "minpro": Look("#7a5195", "s", DASHED),
    "gspo": Look("#7a5195", "P", SOLID),
    "gmpo": Look("#7a5195", "p", DASHED),
    "trm_max": Look("#00707a", "d", SOLID),
    "trm_avg": Look("#0072b2", "s", DASHED),
    "trm_max_avg": Look("#00707a", "P", DASH_DOT),
    "sapo": Look("#4d4d4d", "h", DASHED),
    "ctpo": Look("#4d4d4d", ">", DASH_DOT),
    "dppo_topk_tv_predicted": Look("#3b7d23", "^", DASHED),
    "dppo_topk_tv_undirected": Look("#cc79a7", "^", DOTTED),
    "dppo_topk_kl_predicted": Look("#3b7d23", "v", DASH_DOT),
    "dppo_topk_kl_undirected": Look("#cc79a7", "v", DASH_DOT),
    "prime_rl_default": Look("#0072b2", "P", DASH_DOT),
    "prime_rl_ipo": Look("#0072b2", "X", DOTTED),
    "dro": Look("#d55e00", "s", DASH_DOT),
    "kpop": Look("#8c6d1f", "s", DOTTED),
    "binary_kl_both": Look("#8c6d1f", "P", DASH_DOT),
    "k3_clip": Look("#8c6d1f", "^", SOLID),
    "vespo": Look("#7a5195", "o", DASH_DOT),
    "luspo": Look("#7a5195", "D", SOLID),
    "prefix_mean_clip": Look("#7a5195", "X", DOTTED),
    "topr": Look("#4d4d4d", "^", DOTTED),
    "topr_token": Look("#4d4d4d", "s", DOTTED),
    "m2po_mask": Look("#00707a", "^", DASHED),
    "m2po_bounds": Look("#00707a", "v", DOTTED),
    "a3po": Look("#e69f00", "v", DASHED),
    "bpo": Look("#e69f00", "h", DASH_DOT),
    "entropy_scaled": Look("#3b7d23", "o", SOLID),
    "staleness_tail": Look("#3b7d23", "s", DASHED),
    "switched_sequence": Look("#cc79a7", "o", DASHED),
    "switched_batch": Look("#cc79a7", "s", DASH_DOT),
    "switched_batch_prompt": Look("#cc79a7", "P", DOTTED),
    "clip_cov": Look("#56b4e9", "o", DOTTED),
    "kl_cov": Look("#56b4e9", "s", DASHED),
}
_SPARE_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7a5195", "#00707a", "#4d4d4d")
_SPARE_MARKERS = "os^DvPXd"
# A colour that comes again has another marker, since dashes alone are not told apart.
SPARE = tuple(
    Look(color, _SPARE_MARKERS[(place + 3 * turn) % len(_SPARE_MARKERS)], dashes)
    for turn, dashes in enumerate((SOLID, DASHED, DASH_DOT))
    for place, color in enumerate(_SPARE_COLORS)
)


def looks_of(methods: Sequence[str]) -> dict[str, Look]:
    """One look per method, no two alike: the fixed table first, hashed spares for names it does not hold."""
    looks = {method: LOOKS[method] for method in methods if method in LOOKS}
    for method in methods:
        if method in looks:
            continue
        start = zlib.crc32(method.encode()) % len(SPARE)
        candidates = [SPARE[(start + step) % len(SPARE)] for step in range(len(SPARE))]
        used = set(looks.values())
        colors = {look.color for look in used}
        fresh = [look for look in candidates if look.color not in colors] or [
            look for look in candidates if look not in used
        ]
        looks[method] = fresh[0] if fresh else candidates[0]
    return looks

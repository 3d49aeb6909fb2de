"""The threshold along one sampled response of each method, from its recorded tokens."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cppo_lab.analysis.figures import CannotDraw, Drawing, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.looks import INK, PAPER, RULE, SOFT_INK
from cppo_lab.analysis.formatting import listed
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.run_record import read_json_lines
from cppo_lab.analysis.load.study import Study

MOST_RESPONSES = 4
# More tokens than this have no room for their texts.
MOST_NAMED_TOKENS = 64
MOST_TOKENS = 400
# Sample files looked through for something to see, from the last one back.
MOST_FILES = 60
MOST_LETTERS = 6
BY_THRESHOLD = "#d55e00"
BY_BUDGET = "#0072b2"
KEPT = "#4d4d4d"
TOKEN_DASHES, PREFIX_DASHES = (0, (4, 2)), (0, (1, 1.5))
REASONS = (
    ("", "kept", KEPT, ""),
    ("threshold", "masked by the threshold", BY_THRESHOLD, ""),
    ("budget", "masked by the prefix budget alone", BY_BUDGET, "/////"),
)
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """One recorded response of a method with a threshold; arrays [T], NaN where a token has no such number."""

    method: str
    run_id: str
    step: int
    right: bool
    texts: tuple[str, ...]
    cost: Array
    """w_t D_t."""
    threshold: Array
    """c_t."""
    prefix_threshold: Array | None
    """c_t before its cap at delta; None without a budget."""
    delta: float
    masked: tuple[str, ...]

    def count(self, *reasons: str) -> int:
        """Tokens masked for one of `reasons`."""
        return sum(reason in reasons for reason in self.masked)


@figure(
    "threshold_along_a_response",
    title="The threshold along a response",
    section="mechanisms",
    caption="Each bar is a token's weighted divergence w D in the last update that saw it, coloured by whether "
    "and why it was masked; a tall bar that was kept moved the policy back towards the rollout policy. "
    "The dashed line is the token threshold, the dotted line what the prefix budget leaves, the solid "
    "line the smaller of the two, which applies. Shown is a response with the median number of masked "
    "tokens, of those with a token masked by the budget (or else by the threshold). Bars are cut off at "
    "the top of the axes.",
    about="weighted divergence of each token of one response, with the thresholds that apply",
    paper="Figure 3 of the CPPO paper",
    per_panel=True,
    place=2,
)
def draw(data: FigureData) -> Drawing:
    """One row per response: bars w_t D_t, and the thresholds over them."""
    shown = responses(data)
    if not shown:
        raise CannotDraw(
            "no method with a divergence threshold recorded the tokens of a response (trainer.samples_per_step)"
        )
    sheet, grid = style.small_multiples(len(shown), 1, 10.2, 2.75, (0.0, 0.6))
    for axes, response in zip(grid, shown, strict=True):
        _row(axes, response)
    _name_signs(sheet)
    named = [f"{one.method}: run {one.run_id[:12]}, step {one.step}" for one in shown]
    return Drawing(sheet, f"Shown: {listed(named)}.")


def responses(data: FigureData) -> list[Response]:
    """For each method with a threshold (four at most) a typical response of its first run that recorded any."""
    found = [response for group in data.groups if (response := _recorded(data.study, group)) is not None]
    # Where there are too many, those with a budget have most to show.
    ranked = sorted(found, key=lambda response: response.prefix_threshold is None)[:MOST_RESPONSES]
    return [response for response in found if response in ranked]


def _recorded(study: Study, group: Group) -> Response | None:
    for run_id, run in study.runs[study.runs["group"] == group.label].iterrows():
        files = sorted((Path(run["folder"]) / "samples").glob("step_[0-9]*.jsonl"))[-MOST_FILES:]
        records = [
            (int(path.stem[5:]), row)
            for path in files
            for row in read_json_lines(path)[0]
            if isinstance(row.get("tokens"), dict)
        ]
        responses = [_response(group.method, str(run_id), step, row) for step, row in records]
        seen = [response for response in responses if response is not None]
        if seen:
            return typical(seen)
        if records:
            # The method has no threshold, in its other runs neither.
            return None
    return None


def typical(seen: list[Response]) -> Response:
    """Of the responses that a budget masked tokens of (or else a threshold, or else of all) the one with the median
    number of masked tokens.
    """
    by_budget = [response for response in seen if response.count("budget")]
    masked = by_budget or [response for response in seen if response.count("threshold")] or seen
    ordered = sorted(masked, key=lambda response: response.count("threshold", "budget"))
    return ordered[(len(ordered) - 1) // 2]


def _response(method: str, run_id: str, step: int, row: dict[str, Any]) -> Response | None:
    tokens = row["tokens"]
    if tokens.get("delta") is None or not tokens.get("threshold"):
        return None
    distance = _numbers(tokens["divergence"])
    weights = _numbers(tokens["weight"]) if tokens.get("weight") else np.ones_like(distance)
    left = tokens.get("prefix_threshold")
    return Response(
        method=method,
        run_id=run_id,
        step=step,
        right=float(row.get("reward") or 0.0) > 0,
        texts=tuple(_short(str(text)) for text in tokens["text"][:MOST_TOKENS]),
        cost=weights * distance,
        threshold=_numbers(tokens["threshold"]),
        prefix_threshold=_numbers(left) if left else None,
        delta=float(tokens["delta"]),
        masked=tuple(str(reason) for reason in tokens["masked"][:MOST_TOKENS]),
    )


def _numbers(column: list[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in column[:MOST_TOKENS]], dtype=np.float64)


def _short(text: str) -> str:
    """A token's text as a tick label: printable, and cut to a few letters."""
    seen = "".join(
        "↵" if character == "\n" else "·" if character.isspace() else character
        for character in text
        if character.isprintable() or character.isspace()
    )
    # The figures' font has no glyphs beyond the basic plane, and joins marks to what stands before them.
    seen = "".join(c if ord(c) < 0x2500 and not unicodedata.combining(c) else "□" for c in seen)
    return seen if len(seen) <= MOST_LETTERS else seen[: MOST_LETTERS - 1] + "…"


def _row(axes: Axes, response: Response) -> None:
    places = np.arange(1, len(response.cost) + 1)
    reasons = np.array(response.masked)
    low, high = _limits(response)
    for reason, _, color, hatch in REASONS:
        chosen = reasons == reason
        axes.bar(
            places[chosen],
            np.clip(response.cost[chosen], 0.0, high),
            width=0.78,
            facecolor=PAPER if hatch else color,
            edgecolor=color,
            hatch=hatch or None,
            linewidth=0.8 if hatch else 0.0,
            zorder=2,
        )
    edges = np.arange(len(places) + 1) + 0.5
    axes.axhline(response.delta, color=INK, linewidth=1.0, linestyle=TOKEN_DASHES, zorder=3)
    if response.prefix_threshold is not None:
        shown = np.where(response.prefix_threshold <= high, response.prefix_threshold, np.nan)
        dotted: dict[str, Any] = {"color": SOFT_INK, "linewidth": 1.0, "linestyle": PREFIX_DASHES}
        axes.stairs(shown, edges, baseline=None, **dotted, zorder=3)
    axes.stairs(response.threshold, edges, baseline=None, color=INK, linewidth=1.6, zorder=4)
    axes.axhline(0.0, color=RULE, linewidth=0.8, zorder=1)
    axes.set_xlim(0.3, len(places) + 0.7)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel("weighted divergence w D", fontsize=8)
    verdict = "correct" if response.right else "wrong"
    axes.set_title(f"{response.method}: response at step {response.step}, {verdict}")
    _name_tokens(axes, response, places)


def _limits(response: Response) -> tuple[float, float]:
    """Of the vertical axis: the threshold in sight, and not more than twice it for a few tall bars."""
    tallest = float(np.nanmax(response.cost))
    high = min(max(1.25 * response.delta, 1.08 * tallest), 2.2 * response.delta)
    return min(0.0, 1.1 * float(np.nanmin(response.threshold))), high


def _name_signs(sheet: Figure) -> None:
    patches = [
        Patch(facecolor=PAPER if hatch else color, edgecolor=color, hatch=hatch, label=label)
        for _, label, color, hatch in REASONS
    ]
    lines = [
        Line2D([], [], color=INK, linewidth=1.0, linestyle=TOKEN_DASHES, label="token threshold δ"),
        Line2D([], [], color=SOFT_INK, linewidth=1.0, linestyle=PREFIX_DASHES, label="left by the prefix"),
        Line2D([], [], color=INK, linewidth=1.6, label="threshold that applies, c"),
    ]
    sheet.legend(
        handles=[*patches, *lines], loc="outside upper left", ncols=6, columnspacing=1.4, handlelength=1.8
    )


def _name_tokens(axes: Axes, response: Response, places: npt.NDArray[np.int64]) -> None:
    if len(places) > MOST_NAMED_TOKENS:
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.set_xlabel("token")
        return
    axes.set_xticks(places, response.texts, fontsize=7.5)
    long = max(map(len, response.texts), default=0) > 2
    axes.tick_params(axis="x", length=0, rotation=90 if long else 0)
    for label, reason in zip(axes.get_xticklabels(), response.masked, strict=True):
        color = {name: color for name, _, color, _ in REASONS}[reason] if reason else INK
        label.set_color(color)
        label.set_fontweight("bold" if reason else "normal")

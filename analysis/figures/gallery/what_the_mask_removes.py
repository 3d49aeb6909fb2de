"""What the mask removes: which tokens each method masks, and how much gradient weight that takes away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lab.analysis.figures import CannotDraw, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.looks import Look
from cppo_lab.analysis.load.masked_tokens import MaskCounts, MaskedTokens, masked_tokens_of

# Axis, title, whether its cells are in an order that a line may follow.
AXES = (
    ("class", "class of token", False),
    ("position", "position in response", True),
    ("probability", "probability under μ", True),
    ("entropy", "entropy of π (nats)", True),
    ("sign", "sign of advantage", False),
)
_SMALLEST_SHARE = 0.001
"""A cell with less of a method's tokens is not drawn: its shares say little."""
_MOST_LABELS = 8


@figure(
    "what_the_mask_removes",
    title="What the mask removes",
    section="mechanisms",
    caption="Above: the share of tokens masked, by the class of the token, its relative position, its probability "
    "under the rollout policy, the entropy of the policy there, and the sign of its advantage. Below: the share of "
    "their gradient weight |A| ρ (what plain policy gradient gives them) that the mask takes away. Summed over updates "
    "and seeds. Methods that mask nothing are left out, and so are cells with less than 0.1% of the tokens.",
    about="masked tokens and dropped gradient weight by kind of token, position, probability, entropy and sign of A",
    per_panel=True,
    place=7,
)
def draw(data: FigureData) -> Figure:
    """Two rows of axes, one column per property of a token."""
    runs = data.study.runs
    seen: dict[str, MaskedTokens] = {}
    for group in data.groups:
        found = masked_tokens_of(map(Path, runs.loc[runs["group"] == group.label, "folder"]))
        if found is not None and found.total.all_masked:
            seen[group.method] = found
    if not seen:
        raise CannotDraw("no run counted masked tokens (masked_tokens.json), or none was masked")
    sheet, grid = style.small_multiples(2 * len(AXES), len(AXES), 2.75, 2.55, (0.4, 0.6))
    for column, (axis, title, is_ordered) in enumerate(AXES):
        upper, lower = grid[column], grid[len(AXES) + column]
        cells = _cells(seen, axis)
        for axes, share in ((upper, _masked), (lower, _dropped)):
            _draw(axes, seen, axis, cells, share, data.looks, is_ordered)
        upper.set_title(title)
        upper.tick_params(labelbottom=False)
    grid[0].set_ylabel("tokens masked")
    grid[len(AXES)].set_ylabel("weight dropped")
    style.name_methods(sheet, style.line_handles(list(seen), data.looks))
    return sheet


def _draw(
    axes: Axes,
    seen: dict[str, MaskedTokens],
    axis: str,
    cells: list[str],
    share: Callable[[MaskCounts], float],
    looks: dict[str, Look],
    is_ordered: bool,
) -> None:
    """One share of every method over the cells of an axis: as lines where the cells are ordered, else side by side."""
    high = 0.0
    for place, (method, found) in enumerate(seen.items()):
        counts = found.cells.get(axis, {})
        aside = 0.0 if is_ordered else 0.5 * ((place + 0.5) / len(seen) - 0.5)
        points = [
            (index + aside, share(counts[cell]))
            for index, cell in enumerate(cells)
            if cell in counts and _is_large(counts[cell], found)
        ]
        _plot(axes, points, looks[method], is_ordered)
        high = max([high, *(value for _, value in points)])
    axes.set_xlim(-0.5, len(cells) - 0.5)
    style.percent_axis(axes, 0.0, min(1.0, max(0.005, 1.12 * high)))
    every = 1 + len(cells) // (_MOST_LABELS + 1)
    axes.set_xticks(range(0, len(cells), every), cells[::every], rotation=40, ha="right", fontsize=8)


def _cells(seen: dict[str, MaskedTokens], axis: str) -> list[str]:
    """The cells of an axis that any method has enough tokens in, in their order."""
    total = sum((each for each in list(seen.values())[1:]), start=next(iter(seen.values())))
    cells = [name for name, counts in total.by(axis) if _is_large(counts, total)]
    if axis == "class":
        return sorted(cells, key=lambda name: -total.cells[axis][name].tokens)
    return cells


def _is_large(counts: MaskCounts, found: MaskedTokens) -> bool:
    return counts.tokens >= _SMALLEST_SHARE * found.total.tokens


def _masked(counts: MaskCounts) -> float:
    return counts.all_masked / counts.tokens


def _dropped(counts: MaskCounts) -> float:
    return counts.all_dropped / counts.weight if counts.weight else 0.0


def _plot(axes: Axes, points: list[tuple[float, float]], look: Look, joined: bool) -> None:
    options = look.line() | {"markersize": 4.5, "markeredgewidth": 0.6, "linewidth": 1.6}
    if not joined:
        options["linestyle"] = "none"
    axes.plot([x for x, _ in points], [y for _, y in points], **options)

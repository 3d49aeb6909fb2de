"""What the mask hit: masked_tokens.json of run folders, read and summed over the runs of a method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from cppo_lab.analysis.load.run_record import number, read_object

FILE = "masked_tokens.json"
AXES = ("token", "class", "position", "entropy", "probability", "sign")


@dataclass(frozen=True)
class MaskCounts:
    """Tokens of one cell, each counted once per update that used it.

    masked: how many were masked, by reason. weight: their |A| rho, the weight that plain policy gradient gives them;
    dropped: how much of it was taken away, by reason.
    """

    tokens: float
    masked: Mapping[str, float]
    weight: float
    dropped: Mapping[str, float]

    def __add__(self, other: MaskCounts) -> MaskCounts:
        return MaskCounts(
            self.tokens + other.tokens,
            _sum(self.masked, other.masked),
            self.weight + other.weight,
            _sum(self.dropped, other.dropped),
        )

    @property
    def all_masked(self) -> float:
        """Masked for any reason."""
        return sum(self.masked.values())

    @property
    def all_dropped(self) -> float:
        """Weight taken away for any reason."""
        return sum(self.dropped.values())


@dataclass(frozen=True)
class MaskedTokens:
    """What the mask hit in one or several runs: counts of all tokens, and by axis and cell in the order to show.

    left_out: tokens of a large vocabulary that the file does not name; the other axes count them.
    """

    steps: int
    total: MaskCounts
    cells: Mapping[str, Mapping[str, MaskCounts]]
    left_out: int = 0

    def __add__(self, other: MaskedTokens) -> MaskedTokens:
        axes = {
            axis: _joined(self.cells.get(axis, {}), other.cells.get(axis, {}))
            for axis in dict.fromkeys([*self.cells, *other.cells])
        }
        left_out = max(self.left_out, other.left_out)
        return MaskedTokens(self.steps + other.steps, self.total + other.total, axes, left_out)

    def by(self, axis: str) -> list[tuple[str, MaskCounts]]:
        """The cells of an axis: tokens and classes by how many were masked, bins and signs in their order."""
        cells = list(self.cells.get(axis, {}).items())
        if axis in ("token", "class"):
            return sorted(cells, key=lambda cell: (-cell[1].all_masked, -cell[1].tokens, cell[0]))
        return sorted(cells, key=lambda cell: _place(cell[0]))


def read_masked_tokens(folder: Path) -> MaskedTokens | None:
    """The file of a run folder; None where there is none, or it is damaged."""
    content = read_object(folder / FILE, [])
    if content is None:
        return None
    try:
        columns = [str(name) for name in content["columns"]]
        cells = {
            str(axis): {str(name): _counts(columns, row) for name, row in rows.items()}
            for axis, rows in content["cells"].items()
        }
        total = _counts(columns, content["total"])
        return MaskedTokens(int(content["steps"]), total, cells, int(content.get("tokens_left_out") or 0))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def masked_tokens_of(folders: Iterable[Path]) -> MaskedTokens | None:
    """The sum over run folders; None where none has the file."""
    found = [seen for folder in folders if (seen := read_masked_tokens(folder)) is not None]
    return reduce(MaskedTokens.__add__, found) if found else None


def _counts(columns: list[str], row: list[Any]) -> MaskCounts:
    values = {name: number(value) or 0.0 for name, value in zip(columns, row, strict=True)}
    reasons = columns[1 : columns.index("weight")]
    return MaskCounts(
        values["tokens"],
        {reason: values[reason] for reason in reasons},
        values["weight"],
        {reason: values[f"{reason}_weight"] for reason in reasons},
    )


def _sum(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {name: first.get(name, 0.0) + second.get(name, 0.0) for name in dict.fromkeys([*first, *second])}


def _joined(first: Mapping[str, MaskCounts], second: Mapping[str, MaskCounts]) -> dict[str, MaskCounts]:
    joined = dict(first)
    for name, counts in second.items():
        joined[name] = joined[name] + counts if name in joined else counts
    return joined


def _place(cell: str) -> tuple[float, str]:
    """Bins by where they start, signs from negative to positive."""
    signs = {"negative": 0.0, "zero": 1.0, "positive": 2.0}
    if cell in signs:
        return signs[cell], cell
    start = cell.split()[0]
    try:
        return float(start), cell
    except ValueError:
        return -1.0, cell

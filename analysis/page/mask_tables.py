"""The tables of what each method's mask removes, and of unsafe keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cppo_lab.analysis.formatting import NONE, percent
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.masked_tokens import MaskCounts, MaskedTokens, masked_tokens_of
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.load.unsafe_keeps import UnsafeKeeps, read_unsafe_keeps
from cppo_lab.analysis.page.tables import Cell, Column, Table
from cppo_lab.analysis.safe_text import brief, visible

_NAMED_TOKENS = 3
_LONGEST_TOKEN = 20
_RARE = 0.01
"""A class with a smaller share of every method's masked tokens is among the other ones."""


@dataclass(frozen=True)
class _Seen:
    group: Group
    counts: MaskedTokens

    def share(self, cells: Sequence[MaskCounts]) -> float:
        """The share of all masked tokens that lie in `cells`."""
        total = self.counts.total.all_masked
        return sum(cell.all_masked for cell in cells) / total if total else float("nan")

    def of(self, axis: str, *names: str) -> float:
        """The share of all masked tokens in these cells of an axis."""
        cells = self.counts.cells.get(axis, {})
        return self.share([cells[name] for name in names if name in cells])

    @property
    def most_masked(self) -> str:
        """The tokens masked most often, with their shares of all masked."""
        found = [
            f"{visible(brief(name, _LONGEST_TOKEN))!r} {percent(self.share([cell]))}"
            for name, cell in self.counts.by("token")[:_NAMED_TOKENS]
            if cell.all_masked
        ]
        return ", ".join(found) or NONE


def masked_tokens_table(study: Study) -> Table | None:
    """One row per method that counted its tokens; None where no run did, or nothing was masked."""
    seen = [
        _Seen(group, counts)
        for group in study.grouping.groups
        if (counts := masked_tokens_of(map(Path, _folders(study, group)))) is not None
    ]
    if not any(each.counts.total.all_masked for each in seen):
        return None
    masked = dict.fromkeys(name for each in seen for name, cell in each.counts.by("class") if cell.all_masked)
    classes = [name for name in masked if any(each.of("class", name) >= _RARE for each in seen)]
    rare = [name for name in masked if name not in classes]

    def of_class(name: str) -> Column[_Seen]:
        return Column(name, lambda each: Cell.of(each.of("class", name), percent))

    return Table.of(
        "masked-tokens",
        "What the mask removes, summed over updates and seeds. Masked: share of response tokens. Weight dropped: share "
        "of the gradient weight |A| ρ, what plain policy gradient gives a token, that the mask takes away. By budget, "
        "each class, A < 0 and unlikely (probability under the rollout policy below 0.5): shares of the masked tokens.",
        (
            Column("method", lambda each: Cell(each.group.label, method=each.group.method), numeric=False),
            Column(
                "masked",
                lambda each: Cell.of(_ratio(each.counts.total.all_masked, each.counts.total.tokens), percent),
            ),
            Column(
                "weight dropped",
                lambda each: Cell.of(
                    _ratio(each.counts.total.all_dropped, each.counts.total.weight), percent
                ),
            ),
            Column("by budget", lambda each: Cell.of(_by_budget(each.counts.total), percent)),
            *map(of_class, classes),
            *(
                [Column[_Seen]("other", lambda each: Cell.of(each.of("class", *rare), percent))]
                if rare
                else []
            ),
            Column("A < 0", lambda each: Cell.of(each.of("sign", "negative"), percent)),
            Column("unlikely", lambda each: Cell.of(each.of("probability", *_UNLIKELY), percent)),
            Column("masked most", lambda each: Cell(each.most_masked), numeric=False),
        ),
        seen,
    )


_UNLIKELY = ("below 0.001", "0.001 to 0.01", "0.01 to 0.1", "0.1 to 0.5")


def _by_budget(total: MaskCounts) -> float:
    return _ratio(total.masked.get("budget", 0.0), total.all_masked)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _folders(study: Study, group: Group) -> Sequence[Path]:
    return list(study.runs.loc[study.runs["group"] == group.label, "folder"])


def unsafe_keeps_table(study: Study) -> Table | None:
    """One row per rule that was applied to states of these runs; None where that was not asked for."""
    found = read_unsafe_keeps(map(Path, study.runs["folder"]))
    if not found:
        return None
    methods = set(study.grouping.methods)
    measures = dict.fromkeys(
        f"D = {_DIVERGENCES.get(e.divergence, e.divergence)}, δ = {e.delta:g}" for e in found
    )

    def share(part: str, of: str) -> Column[UnsafeKeeps]:
        return Column(
            {"masked": "masked", "over": "over δ"}[part], lambda each: Cell.of(each.share(part, of), percent)
        )

    return Table.of(
        "unsafe-keeps",
        f"Unsafe keeps: every rule applied to the same states of these runs ({'; '.join(measures)}). Of the tokens "
        "over δ: kept although D rises, and dropped although it does not. Predicted: by the token's own gradient step, "
        "to first order. Measured: after an optimizer step of the rule. Of all kept: tokens on either side of δ.",
        (
            Column(
                "rule",
                lambda each: Cell(each.rule, method=each.rule if each.rule in methods else None),
                numeric=False,
            ),
            Column("runs", lambda each: Cell(str(each.runs), each.runs)),
            Column("states", lambda each: Cell(str(each.states), each.states)),
            share("masked", "tokens"),
            share("over", "tokens"),
            Column("unsafe, predicted", lambda e: Cell.of(e.share("kept_over_predicted", "over"), percent)),
            Column("unsafe, measured", lambda e: Cell.of(e.share("kept_over_measured", "over"), percent)),
            Column("needless, predicted", lambda e: Cell.of(e.needless("predicted"), percent)),
            Column("needless, measured", lambda e: Cell.of(e.needless("measured"), percent)),
            Column("of all kept, predicted", lambda e: Cell.of(e.of_kept("predicted"), percent)),
            Column("of all kept, measured", lambda e: Cell.of(e.of_kept("measured"), percent)),
        ),
        found,
    )


_DIVERGENCES = {"tv": "total variation", "kl": "KL from the rollout policy"}

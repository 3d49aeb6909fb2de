"""Rows of the same run that were measured on several machines or at several commits: kept beside each other.

Evidence is never overwritten. A run measured again adds a row, unless it gave the same numbers; what reads a result
file uses one row per run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from cppo_lab.errors import UserError

Row = dict[str, str]
# Where and when a row was measured.
_ORIGIN = ("device", "commit", "torch")
# What the run itself recorded. All other scores are taken within a panel and change with the runs beside it.
_RECORDED = (
    *(
        "status",
        "start",
        "kl_median",
        "kl_p90",
        "masked_share",
        "budget_share",
        "deviation_early",
        "deviation_late",
    ),
    *("accuracy", "budget", "deviation", "steps", "tokens_sampled", "starting_policy"),
)


class Added(NamedTuple):
    """The rows of a file after an addition, and what became of the new ones."""

    rows: list[Row]
    added: int
    reproduced: int
    replaced: int


def add_rows(old: Sequence[Row], new: Iterable[Row], *, replace: bool = False) -> Added:
    """Rows of `new` behind those of `old`.

    A run that is there and recorded the same is left as it is (reproduced). One that recorded anything else is added
    beside, told apart by device, commit and torch version. With `replace` a new row takes the place of every row of
    its run. Raises UserError where nothing tells two rows apart.
    """
    rows, added, reproduced, replaced = list(old), 0, 0, 0
    for row in new:
        known = [each for each in rows if each["run_id"] == row["run_id"]]
        if replace and known:
            rows = [each for each in rows if each["run_id"] != row["run_id"]]
            replaced += 1
        elif any(_of(each, _RECORDED) == _of(row, _RECORDED) for each in known):
            reproduced += 1
            continue
        elif any(_of(each, _ORIGIN) == _of(row, _ORIGIN) for each in known):
            raise UserError(
                f"run {row['run_id']}: has other numbers than its committed row, from the same kind of machine "
                f"({row.get('device')}) and commit ({row.get('commit')}); give --replace to replace that row."
            )
        else:
            added += 1
        rows.append(row)
    return Added(rows, added, reproduced, replaced)


def one_per_run(
    rows: Sequence[Row], block: Sequence[str], policies: Sequence[str]
) -> tuple[list[Row], list[Row]]:
    """The row to use of each run, and all others.

    `block` names, for each row, the runs to be compared with it (a panel and its seeds), and `policies` its starting
    policy and seeds, by which runs pair. Of a block that several machines measured, the one with most runs is used,
    since runs pair only within a machine; among equals the one with whose policy and seeds the file has most rows,
    since other blocks may be compared with it, and then the first. Runs that it lacks have their first row.
    """
    sets: list[Hashable] = []
    shared = Counter(policies)
    partners: dict[Hashable, int] = {}
    sizes: dict[Hashable, set[str]] = {}
    best: dict[str, Hashable] = {}
    for where, row, policy in zip(block, rows, policies, strict=True):
        sets.append((where, row.get("device"), row.get("torch"), policy))
        sizes.setdefault(sets[-1], set()).add(row["run_id"])
        partners[sets[-1]] = shared[policy]

    def rank(of: Hashable) -> tuple[int, int]:
        return len(sizes[of]), partners[of]

    for where, each in zip(block, sets, strict=True):
        if where not in best or rank(each) > rank(best[where]):
            best[where] = each
    preferred = sorted(range(len(rows)), key=lambda place: (sets[place] != best[block[place]], place))
    used: dict[str, int] = {}
    for place in preferred:
        used.setdefault(rows[place]["run_id"], place)
    kept = set(used.values())
    return [rows[i] for i in sorted(kept)], [row for i, row in enumerate(rows) if i not in kept]


def _of(row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(row.get(column, "") for column in columns)

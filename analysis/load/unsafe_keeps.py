"""Unsafe keeps of rules on the states of runs: unsafe_keeps.json of run folders, summed by rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cppo_lab.analysis.load.run_record import number, read_object

FILE = "unsafe_keeps.json"


@dataclass(frozen=True)
class UnsafeKeeps:
    """One rule on the states of all runs that were measured with the same `divergence` and `delta`.

    counts: tokens by name, as `cppo_lab.diagnostics.unsafe_keeps.KeepCounts` has them.
    """

    rule: str
    divergence: str
    delta: float
    states: int
    runs: int
    counts: Mapping[str, float]

    def share(self, part: str, of: str) -> float:
        """One count over another; NaN of nothing."""
        whole = self.counts.get(of, 0.0)
        return self.counts.get(part, 0.0) / whole if whole else float("nan")

    def needless(self, how: str) -> float:
        """Tokens over the threshold that are dropped although D does not rise, `predicted` or `measured`."""
        over = self.counts.get("over", 0.0)
        dropped = over - self.counts.get("kept_over", 0.0)
        return (dropped - self.counts.get(f"dropped_over_{how}", 0.0)) / over if over else float("nan")

    def of_kept(self, how: str) -> float:
        """The share of all kept tokens whose D rises, `predicted` or `measured`."""
        kept = self.counts.get("tokens", 0.0) - self.counts.get("masked", 0.0)
        return self.counts.get(f"kept_{how}", 0.0) / kept if kept else float("nan")


def read_unsafe_keeps(folders: Iterable[Path]) -> list[UnsafeKeeps]:
    """All rules of all run folders that have the file, in the order in which they were applied."""
    found: dict[tuple[str, str, float], UnsafeKeeps] = {}
    for folder in folders:
        content = read_object(folder / FILE, []) or {}
        rules, delta = content.get("rules"), number(content.get("delta"))
        if not isinstance(rules, dict) or delta is None:
            continue
        for rule, row in rules.items():
            if not isinstance(row, dict):
                continue
            counts = {str(name): value for name, each in row.items() if (value := number(each)) is not None}
            key = (str(rule), str(content.get("divergence")), delta)
            known = found.get(key)
            together = counts if known is None else _sum(known.counts, counts)
            states = int(number(content.get("states")) or 0) + (known.states if known else 0)
            found[key] = UnsafeKeeps(*key, states, 1 + (known.runs if known else 0), together)
    return list(found.values())


def _sum(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {name: first.get(name, 0.0) + second.get(name, 0.0) for name in dict.fromkeys([*first, *second])}

"""The identity of every run that a shipped sweep plans: none may move, or its committed rows are orphans.

`python tests/config/test_pinned_identities.py` adds the runs of new sweeps to the file, and changes no line of it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from cppo_lab.config.identity import run_id, starting_policy_id
from cppo_lab.sweeps.sweep import plan_sweep
from cppo_lab.sweeps.sweep_file import read_sweep, sweep_names

ROOT = Path(__file__).resolve().parents[2]
PINNED = ROOT / "tests" / "pinned" / "run_ids.csv"
Place = tuple[str, str, str]
Identity = tuple[str, str]


def planned(name: str, scale: str) -> Iterator[tuple[Place, Identity]]:
    """Where each run of a sweep stands on its axes, with the identities of the run and of its starting policy."""
    for run in plan_sweep(read_sweep(name, scale), ["trainer.device=cpu"]).runs:
        axes = " ".join(f"{key}={value}" for key, value in run.axes.items())
        yield (name, scale, axes), (run_id(run.config), starting_policy_id(run.config))


def pinned() -> dict[Place, Identity]:
    with PINNED.open(encoding="utf-8", newline="") as file:
        return {(name, scale, axes): (run, start) for name, scale, axes, run, start in csv.reader(file)}


SWEEPS = [(name, scale) for name in sweep_names() for scale in read_sweep(name).scales]


@pytest.mark.parametrize(("name", "scale"), SWEEPS)
def test_runs_of_a_shipped_sweep_keep_their_identities(name: str, scale: str) -> None:
    expected = {place: identity for place, identity in pinned().items() if place[:2] == (name, scale)}
    assert dict(planned(name, scale)) == expected


def test_every_committed_row_is_of_a_pinned_run() -> None:
    known = {run for run, _ in pinned().values()}
    for path in sorted((ROOT / "results").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            orphans = [row["run_id"] for row in csv.DictReader(file) if row["run_id"] not in known]
        assert not orphans, path.name


if __name__ == "__main__":
    found = pinned() if PINNED.exists() else {}
    for each in SWEEPS:
        found |= {place: ids for place, ids in planned(*each) if place not in found}
    with PINNED.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows((*place, *ids) for place, ids in found.items())

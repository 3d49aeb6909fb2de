"""Runs at tuned points: which point each is at, and the error of its choice, which their contrasts count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from cppo_lab.analysis.run_table import Run, RunTable
from cppo_lab.sweeps.sweep_file import SweepFile
from cppo_lab.sweeps.tuned_points import read_tuned

Points = Sequence[Mapping[str, Any]]
"""Tuned points as a sweep's manifest lists them."""


def points_of_file(file: SweepFile) -> Points:
    """The tuned points of a sweep file; none without `tuned`."""
    if file.tuned is None:
        return []
    return [asdict(point) for point in read_tuned(file.tuned, file.path).points]


def at_tuned_points(table: RunTable, points: Points) -> RunTable:
    """The run table with the tuned point of every run."""
    if not points:
        return table
    return replace(table, runs=tuple(replace(run, choice=_choice(run, points)) for run in table.runs))


def _choice(run: Run, points: Points) -> frozenset[tuple[str, float]]:
    method = run.axes.get("algo", run.method)
    fitting = [
        point
        for point in points
        if point["method"] == method
        and all(run.axes.get(key, value) == value for key, value in point["panel"].items())
    ]
    # Where an axis is missing from the table, the larger error is the safer one.
    largest = max(fitting, key=lambda point: point.get("choice_error") or 0.0, default=None)
    if largest is None or not largest.get("choice_error"):
        return frozenset()
    return frozenset({(f"{method} {sorted(largest['panel'].items())}", float(largest["choice_error"]))})

"""Runs at tuned points: which point each is at, and the error of its choice, which their contrasts count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from cppo_lab.analysis.run_table import Run, RunTable
from cppo_lab.sweeps.sweep_file import SweepFile
from cppo_lab.sweeps.tuned_points import TUNED, read_tuned

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
    return replace(table, runs=tuple(_at_point(run, points) for run in table.runs))


def point_of(method: str, axes: Mapping[str, str], points: Points) -> Mapping[str, Any] | None:
    """The tuned point of a run with these values on its axes; None for one that sets a tuned key itself."""
    named = axes.get("algo", method)
    fitting = [
        point
        for point in points
        if point["method"] == named
        and all(axes.get(key, value) == value for key, value in point["panel"].items())
        and all(axes.get(key, TUNED) == TUNED for key in point["setting"])
    ]
    # Where an axis is missing from the table, the larger error is the safer one.
    return max(fitting, key=lambda point: point.get("choice_error") or 0.0, default=None)


def _at_point(run: Run, points: Points) -> Run:
    point = point_of(run.method, run.axes, points)
    if point is None:
        return run
    place = f"{point['method']} {sorted(point['panel'].items())}"
    choice = frozenset({(place, float(point["choice_error"]))}) if point.get("choice_error") else frozenset()
    return replace(run, choice=choice, setting=dict(point["setting"]))

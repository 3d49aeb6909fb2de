"""The runs that a sweep file plans, as its result file will name them, without composing any."""

from __future__ import annotations

from analysis.grouping import group_runs
from analysis.outcomes import Planned
from cppo_lab.runs.grids import axis_names, combinations
from cppo_lab.runs.sweep_files import SweepFile


def planned_runs(file: SweepFile) -> list[Planned]:
    """Every run of the sweep with its panel, method and seeds; an axis that its file leaves open is `?`."""
    found = combinations(file, [])
    axes = axis_names(file, found)
    values = {
        str(number): {axis: run.value(axis) or "?" for axis in axes} for number, run in enumerate(found)
    }
    order = {axis: list(dict.fromkeys(on_axes[axis] for on_axes in values.values())) for axis in axes}
    methods = {str(number): run.value("algo") or "?" for number, run in enumerate(found)}
    members = group_runs(order, values, methods).membership
    return [
        Planned(members[key].panel, members[key].method, members[key].seeds, on_axes)
        for key, on_axes in values.items()
    ]

"""The runs that a sweep file plans, found without composing any configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from cppo_lab.analysis.claims import Planned
from cppo_lab.analysis.grouping import Grouping, group_runs, has_baseline
from cppo_lab.analysis.tuned import point_of, points_of_file
from cppo_lab.errors import UserError, one_of
from cppo_lab.objectives.describe import flatten
from cppo_lab.objectives.named import method
from cppo_lab.sweeps.expansion import Combination, axis_names
from cppo_lab.sweeps.study import sweep_runs
from cppo_lab.sweeps.sweep import Sweep
from cppo_lab.sweeps.sweep_file import SweepFile
from cppo_lab.sweeps.tuned_points import TunedRun, read_tuned, tuned_runs

OPEN = "?"
"""Stands for a value that a run's overrides do not give."""


def planned_runs(file: SweepFile) -> list[Planned]:
    """Every run of the sweep with its panel, method and seeds. Raises UserError for an axis that a grid leaves open."""
    found = _runs_of(file)
    axes = axis_names(file, [each.run for each in found])
    for axis in axes:
        if any((run.value(axis) or _of_method(run.run, axis)) is None for run in found):
            raise UserError(
                f"sweep {file.slug}: axes: {axis}: every grid must set it, since another one varies it; one leaves it "
                "to the configuration."
            )
    values = _on_axes(found, axes)
    members = _grouped(found, values).membership
    points = points_of_file(file)
    return [
        Planned(
            members[key].panel,
            members[key].method,
            members[key].seeds,
            on_axes,
            point_of(members[key].method, on_axes, points) is not None,
        )
        for key, on_axes in values.items()
    ]


def _runs_of(file: SweepFile) -> list[TunedRun]:
    """The runs of the file, those of a tuned one at their points."""
    found = sweep_runs(file, [])
    if file.tuned is None:
        return [TunedRun(each) for each in found]
    return tuned_runs(file, read_tuned(file.tuned, file.path), found)


def check_baseline(place: str, sweep: Sweep) -> None:
    """Raise UserError where a sweep file's baseline is none of its methods. The command line may leave it out."""
    wanted = sweep.file.baseline
    runs = {run.folder.path.name: run for run in sweep.runs}
    planned = group_runs(
        sweep.axes,
        {name: run.axes for name, run in runs.items()},
        {name: run.config.algo.name for name, run in runs.items()},
        sweep.file.of_methods,
    )
    if wanted is None or has_baseline(planned, wanted):
        return
    if sweep.file.typed:
        raise one_of("--baseline", wanted, planned.methods)
    found = _runs_of(sweep.file)
    in_file = _grouped(found, _on_axes(found, axis_names(sweep.file, [each.run for each in found])))
    if OPEN not in in_file.methods and not has_baseline(in_file, wanted):
        raise one_of(f"{place}: baseline", wanted, {*planned.methods, *in_file.methods})


def _on_axes(found: Sequence[TunedRun], axes: Sequence[str]) -> dict[str, dict[str, str]]:
    """The values of every combination, by its number; OPEN where its overrides do not give one."""
    return {
        str(number): {axis: run.value(axis) or _of_method(run.run, axis) or OPEN for axis in axes}
        for number, run in enumerate(found)
    }


@cache
def _values_of(name: str) -> Mapping[str, Any]:
    try:
        return flatten(method(name))
    except ValueError:
        return {}


def _of_method(run: Combination, axis: str) -> str | None:
    """The value that a run's method gives an axis of `algo` which only another grid varies, as the sweep writes it."""
    key, values = axis.removeprefix("algo."), _values_of(run.value("algo") or "")
    if key == axis or key not in values:
        return None
    return "none" if values[key] is None else str(values[key])


def _grouped(found: Sequence[TunedRun], values: Mapping[str, Mapping[str, str]]) -> Grouping:
    axes = list(next(iter(values.values())))
    order = {axis: list(dict.fromkeys(on_axes[axis] for on_axes in values.values())) for axis in axes}
    methods = {str(number): run.value("algo") or OPEN for number, run in enumerate(found)}
    return group_runs(order, values, methods)

"""The axes of a study: those of its sweeps, and whatever else differs between its runs.

A configuration key is loose when two runs differ in it although they agree on every axis that changes it: a setting
that two sweeps do not share, or any difference between runs selected by hand. Loose keys become axes of the study, so
that the reader sees them, unless an axis already determines their value.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cppo_lab.analysis.load.run_record import RunRecord
from cppo_lab.config.identity import determines_result
from cppo_lab.config.seed_axes import is_seed_axis

# The configuration key that names the choice of a group.
NAME_OF_CHOICE = {"algo": "algo.name", "model": "model.name", "task": "task.kind"}
# The choices to name first when two runs differ.
NAMED_CHOICES = ("algo.name", "model.name", "task.kind", "engine.kind", "engine.weights")
UNKNOWN = "?"

Facts = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """A sweep with its runs and axes, or runs selected one by one, which have no axes.

    overrides: for each run, the overrides it was started with (`regime` -> `mild`).
    """

    name: str
    is_sweep: bool
    records: tuple[RunRecord, ...]
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Axes:
    """The axes of a study.

    order: the values of each axis, in display order; values: for each run, its value on each axis.
    facts: for each run, the configuration keys that determine its result; empty where its configuration is lost.
    loose: for each loose key, the runs by value.
    """

    order: dict[str, list[str]]
    values: dict[str, dict[str, str]]
    facts: Facts
    loose: dict[str, dict[str, list[str]]]

    def follows(self, key: str, owner: str) -> bool:
        """Whether the key or axis `owner` determines the value of `key`."""
        rows = [{**self.values[run], **facts} for run, facts in self.facts.items() if facts]
        return _follows(_column(rows, key), _column(rows, owner))


def unique_records(sources: Sequence[Source]) -> list[RunRecord]:
    """The runs of all sources, without repeats."""
    found: dict[str, RunRecord] = {}
    for source in sources:
        for record in source.records:
            found.setdefault(record.run_id, record)
    return list(found.values())


def study_axes(sources: Sequence[Source]) -> Axes:
    """The axes of all sources together."""
    facts = {record.run_id: facts_of(record) for record in unique_records(sources)}
    movers = _movers(sources, facts)
    if len(sources) == 1 and sources[0].is_sweep:
        values = {record.run_id: dict(record.axes) for record in sources[0].records}
        order = {axis: list(given) for axis, given in sources[0].axes.items()}
        return Axes(order, values, facts, _loose(facts, values, movers))
    chosen = list(dict.fromkeys(axis for source in sources for axis in source.axes))
    values = _values_of_chosen(chosen, sources, facts, movers)
    loose = _loose(facts, values, movers)
    rows = [{**facts[run], **values[run]} for run in facts if facts[run]]
    extra = independent(rows, loose, chosen)
    for run, on_axes in values.items():
        on_axes.update({key: canonical(facts[run][key]) for key in extra if key in facts[run]})
    _fill(values, [*chosen, *extra], sources)
    order = {axis: list(dict.fromkeys(values[run][axis] for run in values)) for axis in [*chosen, *extra]}
    return Axes(order, values, facts, loose)


def facts_of(record: RunRecord) -> dict[str, Any]:
    """The configuration keys that determine the run's result, with the content of local files and the device used.

    Where the configuration is lost, the few that run.json records.
    """
    info = record.info
    model = info["model"].get("name") if isinstance(info.get("model"), dict) else None
    told = {"task.kind": info.get("task"), "model.name": model, "trainer.steps": info.get("steps")}
    facts = {key: value for key, value in told.items() if value is not None}
    facts |= {key: value for key, value in record.config.items() if determines_result(key)}
    if facts.get("trainer.device") == "auto" and info.get("device"):
        facts["trainer.device"] = str(info["device"]).split()[0]
    inputs = info.get("inputs")
    for key, content in inputs.items() if isinstance(inputs, dict) else ():
        if key == "model.path" and facts.get("model.name") == facts.get(key):
            facts["model.name"] = content
        facts[key] = content
    return facts


def independent(
    rows: Sequence[Mapping[str, Any]], keys: Collection[str], known: Sequence[str] = ()
) -> list[str]:
    """Those of `keys` that are determined neither by one in `known` nor by one found before.

    Named choices (algo.name, task.kind, ...) come first and seeds last; the trust region follows from the algorithm.
    """
    ordered = sorted(keys, key=lambda key: (key.count("."), key))
    columns = {key: _column(rows, key) for key in {*ordered, *known}}
    named = [name for name in NAMED_CHOICES if name in keys]
    plain = [key for key in ordered if not is_seed_axis(key)]
    axes = [key for key in known if not is_seed_axis(key)]
    seeds = [key for key in known if is_seed_axis(key)]
    for found, candidates in ((axes, [*named, *plain]), (seeds, filter(is_seed_axis, ordered))):
        for key in candidates:
            if not any(_follows(columns[key], columns[owner]) for owner in found):
                found.append(key)
    return [key for key in [*axes, *seeds] if key not in known]


def canonical(value: object) -> str:
    """A value as text, the same however it was written: `4e-4`, `0.0004` or the number."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    try:
        return str(int(text))
    except ValueError:
        number = _number(text)
    if number is None:
        return text
    return str(int(number)) if number.is_integer() else repr(number)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    # A hash such as 12e4567 is no number.
    return number if math.isfinite(number) else None


def _movers(sources: Sequence[Source], facts: Facts) -> dict[str, set[str]]:
    """For each key, the axes that change it: runs of a sweep that differ only on that axis and in seeds differ in it.

    A key that varies in a sweep without such runs may be changed by any of its axes.
    """
    movers: dict[str, set[str]] = {}
    for source in sources:
        axes = [axis for axis in source.axes if not is_seed_axis(axis)]
        records = [record for record in source.records if facts[record.run_id]]
        varying = _varying([facts[record.run_id] for record in records])
        moved: set[str] = set()
        for axis in axes:
            alike: dict[tuple[str | None, ...], list[dict[str, Any]]] = {}
            for record in records:
                rest = tuple(record.axes.get(other) for other in axes if other != axis)
                alike.setdefault(rest, []).append(facts[record.run_id])
            for key in {key for rows in alike.values() for key in _varying(rows)}:
                movers.setdefault(key, set()).add(axis)
                moved.add(key)
        for key in varying - moved:
            movers.setdefault(key, set()).update(axes)
    return movers


def _varying(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys with two values among the rows that have them."""
    first: dict[str, Any] = {}
    found: set[str] = set()
    for row in rows:
        for key, value in row.items():
            if key not in found and first.setdefault(key, value) != value and not is_seed_axis(key):
                found.add(key)
    return found


def _values_of_chosen(
    chosen: Sequence[str], sources: Sequence[Source], facts: Facts, movers: Mapping[str, set[str]]
) -> dict[str, dict[str, str]]:
    own: dict[str, dict[str, str]] = {run: {} for run in facts}
    given: dict[str, dict[str, str]] = {run: {} for run in facts}
    for source in sources:
        for record in source.records:
            own[record.run_id].update(record.axes)
            given[record.run_id].update(source.overrides.get(record.run_id, {}))
    values: dict[str, dict[str, str]] = {run: {} for run in facts}
    for axis in chosen:
        for run, known in facts.items():
            # A configuration key is what ran. The choice of a group is named by the sweep's axis, by the command line,
            # or by the configuration.
            name = NAME_OF_CHOICE.get(axis, "")
            told = ((known, axis), (own[run], axis), (given[run], axis), (known, name))
            for holder, key in told:
                if key in holder:
                    values[run][axis] = canonical(holder[key])
                    break
        _recognise(axis, values, facts, [key for key, axes in movers.items() if axis in axes])
    return values


def _recognise(axis: str, values: Mapping[str, dict[str, str]], facts: Facts, moved: Sequence[str]) -> None:
    """Infer the value of runs that do not record it from runs that do, by the keys that the axis changes."""
    if not moved:
        return
    seen = {
        tuple(repr(facts[run].get(key)) for key in moved): on_axes[axis]
        for run, on_axes in values.items()
        if axis in on_axes and facts[run]
    }
    for run, on_axes in values.items():
        recognised = seen.get(tuple(repr(facts[run].get(key)) for key in moved))
        if axis not in on_axes and recognised is not None:
            on_axes[axis] = recognised


def _loose(
    facts: Facts, values: Mapping[str, Mapping[str, str]], movers: Mapping[str, Collection[str]]
) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for key in sorted({key for known in facts.values() for key in known}):
        owners = sorted(movers.get(key, ()))
        alike: dict[tuple[str | None, ...], dict[str, list[str]]] = {}
        for run, known in facts.items():
            if key in known:
                place = tuple(values[run].get(axis) for axis in owners)
                alike.setdefault(place, {}).setdefault(canonical(known[key]), []).append(run)
        for by_value in alike.values():
            if len(by_value) > 1:
                for value, runs in by_value.items():
                    found.setdefault(key, {}).setdefault(value, []).extend(runs)
    return found


def _fill(values: Mapping[str, dict[str, str]], axes: Sequence[str], sources: Sequence[Source]) -> None:
    """Give a run without a configuration the value that all others of its source share."""
    for source in sources:
        members = [values[record.run_id] for record in source.records]
        for axis in axes:
            shared = {on_axes[axis] for on_axes in members if axis in on_axes}
            value = shared.pop() if len(shared) == 1 else UNKNOWN
            for on_axes in members:
                on_axes.setdefault(axis, value)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return [repr(row.get(key)) for row in rows]


def _follows(values: Sequence[str], owner: Sequence[str]) -> bool:
    return len(set(zip(owner, values, strict=True))) == len(set(owner))

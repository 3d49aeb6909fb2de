"""Sweeps: a question, axes in Hydra's grammar, and the runs they expand to."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cppo_lab.config.compose import compose_runs
from cppo_lab.config.identity import digest
from cppo_lab.config.overrides import with_plugins
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.files import read_object, write_atomically
from cppo_lab.sweeps.expansion import axis_names, combinations, hydra_settings, merged_grids, values_set
from cppo_lab.sweeps.sweep_file import SweepFile, adhoc_sweep, read_sweep, split_scale
from cppo_lab.tracking.run_folder import RunFolder, jsonable_config, run_folder


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: its overrides, the axis values among them, and its validated configuration."""

    overrides: tuple[str, ...]
    axes: Mapping[str, str]
    config: RunConfig

    @cached_property
    def folder(self) -> RunFolder:
        """Where the run is, or will be."""
        return run_folder(self.config)

    @property
    def run_id(self) -> str:
        """Its identity, which its folder's name ends in."""
        return self.folder.path.name.rpartition("-")[2]

    @property
    def label(self) -> str:
        """The method and the other axis values, as a person would say them."""
        others = [f"{key}={value}" for key, value in self.axes.items() if key != "algo"]
        return " ".join([self.config.algo.name, *others])


@dataclass(frozen=True)
class Sweep:
    """A sweep with all its runs composed and validated."""

    file: SweepFile
    name: str
    runs: tuple[PlannedRun, ...]
    output: Path

    @property
    def folder(self) -> Path:
        """Where the manifest is written."""
        return self.output / "sweeps" / self.name

    @property
    def axes(self) -> dict[str, list[str]]:
        """The values of each axis, in the order of the runs."""
        found: dict[str, list[str]] = {}
        for run in self.runs:
            for key, value in run.axes.items():
                if value not in found.setdefault(key, []):
                    found[key].append(value)
        return found

    @property
    def manifest_path(self) -> Path:
        """The list of the sweep's runs that the report reads."""
        return self.folder / "sweep.json"

    def manifest(self) -> dict[str, Any]:
        """What the sweep's file and its runs say now of sweep.json."""
        return {
            "name": self.name,
            "title": self.file.title,
            "question": self.file.question,
            "axes": self.axes,
            "baseline": self.file.baseline,
            "window": self.file.window,
            "claims": list(self.file.claims),
            "runs": [
                {
                    "run_id": run.run_id,
                    "folder": f"runs/{run.folder.path.name}",
                    "overrides": list(run.overrides),
                    "axes": dict(run.axes),
                    # Tells a run whose folder is gone from one that never started.
                    "status": run.folder.status,
                }
                for run in self.runs
            ],
        }

    def read_manifest(self) -> dict[str, Any]:
        """The content of sweep.json; empty before the sweep was first run."""
        return read_object(self.manifest_path)

    def write_manifest(self, **extra: Any) -> Path:
        """Bring sweep.json up to date. One that is stays untouched: its time tells whether a report is older."""
        known = self.read_manifest()
        manifest = jsonable_config({"created_at": _now()} | known | self.manifest() | extra)
        if manifest != known:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.manifest_path, json.dumps(manifest, indent=2) + "\n")
        return self.manifest_path


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def plan_sweep(file: SweepFile, overrides: Sequence[str], config_dir: Path | None = None) -> Sweep:
    """Compose and validate every run of the sweep. Raises UserError before any of them starts."""
    overrides = with_plugins(file.plugins, overrides)
    overrides = [o for o in overrides if o not in hydra_settings(overrides)]
    found = combinations(file, overrides)
    axes = axis_names(file, found)
    configs = compose_runs([each.overrides for each in found], config_dir)
    runs = []
    for each, config in zip(found, configs, strict=True):
        values = {axis: each.value(axis) or _of_config(axis, config) for axis in axes}
        runs.append(PlannedRun(each.overrides, values, config))
    telling = sorted(_telling(overrides))
    of_file = any(grid.axes for grid in file.grids)
    name = f"{file.slug}-{digest(telling)[:6]}" if telling and of_file else file.slug
    distinct = _without_repeats(runs)
    _refuse_two_in_one(file, distinct)
    return Sweep(file, name, distinct, runs[0].config.paths.output)


def _telling(overrides: Sequence[str]) -> list[str]:
    """Those that make a sweep another one: not where it is written and tracked, what does its runs, or plug-ins."""
    others = hydra_settings(overrides)
    return [o for o in overrides if not o.startswith(("paths.", "tracking", "plugins=")) and o not in others]


def _refuse_two_in_one(file: SweepFile, runs: Sequence[PlannedRun]) -> None:
    """Raise UserError where two runs that differ stand at the same place of every axis: they would count as one."""
    places: dict[tuple[tuple[str, str], ...], PlannedRun] = {}
    for run in runs:
        other = places.setdefault(tuple(run.axes.items()), run)
        if other is run:
            continue
        differing = _differing(other, run)
        told = ", ".join(f"{key} to {first} and to {second}" for key, (first, second) in differing.items())
        given = " ".join(f"{key}=…" for key in differing)
        raise UserError(
            f"sweep {file.slug}: {' '.join(f'{key}={value}' for key, value in run.axes.items())}: two grids of the "
            f"file set {told} for it; give {given} as well."
        )


def _differing(one: PlannedRun, other: PlannedRun) -> dict[str, tuple[str, str]]:
    """The keys that two runs are told to set differently, with both values; as it came out where one leaves a key."""
    first, second = values_set(one.overrides), values_set(other.overrides)
    found = {}
    for key in dict.fromkeys((*first, *second)):
        values = first.get(key) or _out(key, one.config), second.get(key) or _out(key, other.config)
        if values[0] != values[1]:
            found[key] = values
    return found


def _out(key: str, config: RunConfig) -> str:
    found = _at(key, config)
    return str(found) if isinstance(found, (str, int, float)) else "what it is by default"


def _of_config(axis: str, config: RunConfig) -> str:
    """Where a run stands on an axis that another grid of its sweep varies, as it came out."""
    found = _at(axis, config)
    if not isinstance(found, (str, int, float)):
        raise UserError(f"axes: {axis}: every grid of the sweep must set it, since another one varies it.")
    return str(found)


def _at(key: str, config: RunConfig) -> Any:
    """What a configuration holds at a dotted key; None where that is no key of it."""
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part, None)
    return found


def find_sweep(name: str, overrides: Sequence[str], config_dir: Path | None) -> tuple[Sweep, list[list[str]]]:
    """The planned sweep of a name, a file or a first override, and for each of its grids the overrides merged with
    those of the file.
    """
    if "=" in name:
        overrides = with_plugins([], [name, *overrides])
        if split_scale(overrides)[1] != list(overrides):
            raise UserError("scale: only a sweep file has scales; name one, such as table1 scale=paper.")
        file = adhoc_sweep(_telling(overrides))
    else:
        # A plug-in may bring the sweep along.
        scale, overrides = split_scale(with_plugins([], overrides))
        file = read_sweep(name, scale)
        overrides = with_plugins(file.plugins, overrides)
    return plan_sweep(file, overrides, config_dir), merged_grids(file, overrides)


def _without_repeats(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Two combinations may describe the same run; it is done once."""
    return tuple({run.folder.path.name: run for run in reversed(runs)}.values())[::-1]

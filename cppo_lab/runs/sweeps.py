"""Sweeps: a question, axes in Hydra's grammar, and the runs they expand to."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cppo_lab.compose import compose_runs
from cppo_lab.config import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.runs.folder import RunFolder, jsonable_config, write_atomically
from cppo_lab.runs.identity import digest, run_folder
from cppo_lab.runs.sweep_files import Grid, SweepFile, adhoc_sweep, read_sweep, split_scale


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

    def read_manifest(self) -> dict[str, Any]:
        """The content of sweep.json; empty before the sweep was first run."""
        path = self.folder / "sweep.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def write_manifest(self, **extra: Any) -> Path:
        """Write sweep.json, the list of the sweep's runs that the report reads."""
        path = self.folder / "sweep.json"
        known = self.read_manifest()
        manifest = known | {
            "name": self.name,
            "title": self.file.title,
            "question": self.file.question,
            "axes": self.axes,
            "baseline": self.file.baseline,
            "window": self.file.window,
            "paper": self.file.paper,
            "figure": self.file.figure,
            "scale": self.file.scale,
            "created_at": known.get("created_at") or _now(),
            "runs": [
                {
                    "run_id": run.folder.path.name.rpartition("-")[2],
                    "folder": f"runs/{run.folder.path.name}",
                    "overrides": list(run.overrides),
                    "axes": dict(run.axes),
                    # Tells a run whose folder is gone from one that never started.
                    "status": run.folder.status,
                }
                for run in self.runs
            ],
            **extra,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(jsonable_config(manifest), indent=2) + "\n")
        return path


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _parse(overrides: Sequence[str]) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        reason = " ".join(str(error).split()).partition(" See https")[0]
        raise UserError(f"{error.override}: not an override in Hydra's grammar ({reason}).") from error


def hydra_settings(overrides: Sequence[str]) -> list[str]:
    """Those overrides that speak to Hydra itself (a launcher or a sweeper plug-in and its settings)."""
    return [o for o in overrides if o.lstrip("+~").startswith(("hydra/", "hydra."))]


def merged_overrides(file: SweepFile, grid: Grid, overrides: Sequence[str]) -> list[str]:
    """What the file says of one of its grids, with what the command line says in its place; a later one replaces."""
    merged: dict[str, str] = {}
    own = [*file.overrides, *grid.overrides, *(f"{key}={value}" for key, value in grid.axes.items())]
    for text, parsed in [
        *zip(own, _parse(own), strict=True),
        *zip(overrides, _parse(overrides), strict=True),
    ]:
        key = parsed.get_key_element().lstrip("+")
        merged[key] = text
    return list(merged.values())


def expand(overrides: Sequence[str]) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Every combination of the swept values, by Hydra's own sweeper: (overrides, axis values) of each run."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = _parse(overrides)
    swept = {o.get_key_element() for o in parsed if o.is_sweep_override()}
    batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    combinations = []
    for combination in (c for batch in batches for c in batch):
        axes = {}
        for override in combination:
            key, _, value = override.partition("=")
            if key in swept:
                axes[key.lstrip("+")] = value
        combinations.append((tuple(combination), axes))
    return combinations


def plan_sweep(file: SweepFile, overrides: Sequence[str], config_dir: Path | None = None) -> Sweep:
    """Compose and validate every run of the sweep. Raises UserError before any of them starts."""
    overrides = [o for o in overrides if o not in hydra_settings(overrides)]
    combinations = [
        combination for grid in file.grids for combination in expand(merged_overrides(file, grid, overrides))
    ]
    axes = list(dict.fromkeys(key for _, values in combinations for key in values))
    if len(file.grids) > 1:
        # What one grid holds fixed, another may hold at another value.
        axes = list(dict.fromkeys([*(key for grid in file.grids for key in grid.axes), *axes]))
    configs = compose_runs([combination for combination, _ in combinations], config_dir)
    runs = []
    for (combination, values), config in zip(combinations, configs, strict=True):
        everywhere = {key: values[key] if key in values else _value(key, combination, config) for key in axes}
        runs.append(PlannedRun(combination, everywhere, config))
    # Where a sweep is written and tracked does not make it another one.
    telling = sorted(o for o in overrides if not o.startswith(("paths.", "tracking")))
    of_file = any(grid.axes for grid in file.grids)
    name = f"{file.slug}-{digest(telling)[:6]}" if telling and of_file else file.slug
    return Sweep(file, name, _without_repeats(runs), runs[0].config.paths.output)


def _value(key: str, combination: Sequence[str], config: RunConfig) -> str:
    """Where a run stands on an axis that another grid of its sweep varies: as it is set, or as it came out."""
    for override in reversed(combination):
        name, _, value = override.lstrip("+").partition("=")
        if name == key:
            return value
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, (str, int, float)):
        raise UserError(f"axes: {key}: every grid of the sweep must set it, since another one varies it.")
    return str(found)


def find_sweep(name: str, overrides: Sequence[str], config_dir: Path | None) -> tuple[Sweep, list[list[str]]]:
    """The planned sweep of a name, a file or a first override, and for each of its grids the overrides merged with
    those of the file.
    """
    if "=" in name:
        overrides = [name, *overrides]
        if split_scale(overrides)[1] != overrides:
            raise UserError("scale: only a sweep file has scales; name one, such as table1 scale=paper.")
        file = adhoc_sweep([o for o in overrides if not o.startswith("paths.")])
    else:
        scale, overrides = split_scale(overrides)
        file = read_sweep(name, scale)
    merged = [merged_overrides(file, grid, overrides) for grid in file.grids]
    return plan_sweep(file, overrides, config_dir), merged


def _without_repeats(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Two combinations may describe the same run; it is done once."""
    return tuple({run.folder.path.name: run for run in reversed(runs)}.values())[::-1]

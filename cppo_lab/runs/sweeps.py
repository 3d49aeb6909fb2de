"""Sweeps: a question, axes in Hydra's grammar, and the runs they expand to."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cppo_lab.compose import compose_run
from cppo_lab.config import RunConfig
from cppo_lab.errors import UserError, near_miss
from cppo_lab.paths import sweeps_dir
from cppo_lab.runs.folder import RunFolder, jsonable_config, write_atomically
from cppo_lab.runs.identity import digest, run_folder

_KEYS = {"title", "question", "overrides", "axes", "baseline", "window"}


@dataclass(frozen=True)
class SweepFile:
    """What a sweep's YAML file says. `axes` hold Hydra sweep expressions, the last one varying fastest.

    `window` is the number of training steps within which the report looks for the best accuracy; without it, they
    end where the shortest finished run does.
    """

    name: str
    title: str
    question: str
    overrides: tuple[str, ...]
    axes: Mapping[str, str]
    baseline: str | None
    window: int | None = None


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


def sweep_names() -> list[str]:
    """The sweeps that ship with the lab."""
    return sorted(path.stem for path in sweeps_dir().glob("*.yaml"))


def _axis(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value)


def read_sweep(name_or_file: str) -> SweepFile:
    """The sweep of that name, or in that file. Raises UserError when it is missing or not a sweep."""
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = sweeps_dir() / f"{name_or_file}.yaml"
        if not path.is_file():
            names = sweep_names()
            raise UserError(
                f"sweep {name_or_file}: unknown; allowed are {', '.join(names)}, or the path of a YAML file."
                f"{near_miss(name_or_file, names)}"
            )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such sweep file.") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable YAML file ({' '.join(str(error).split())[:160]})."
        ) from error
    return _sweep_file(path, content)


def _sweep_file(path: Path, content: Any) -> SweepFile:
    if not isinstance(content, dict) or not isinstance(content.get("axes"), dict) or not content["axes"]:
        raise UserError(
            f"{path}: a sweep file needs 'axes', a mapping from keys to lists or Hydra sweep expressions."
        )
    for key in content:
        if key not in _KEYS:
            allowed = ", ".join(sorted(_KEYS))
            raise UserError(f"{path}: {key}: unknown key; allowed are {allowed}.{near_miss(str(key), _KEYS)}")
    window = content.get("window")
    if window is not None and (type(window) is not int or window < 1):
        raise UserError(
            f"{path}: window={window}: must be a number of training steps of at least 1, or null."
        )
    return SweepFile(
        name=path.stem,
        title=str(content.get("title", path.stem)),
        question=" ".join(str(content.get("question", "")).split()),
        overrides=tuple(str(item) for item in content.get("overrides") or ()),
        axes={str(key): _axis(value) for key, value in content["axes"].items()},
        baseline=content.get("baseline"),
        window=window,
    )


def adhoc_sweep(overrides: Sequence[str]) -> SweepFile:
    """A sweep given entirely on the command line."""
    name = f"adhoc-{digest(list(overrides))[:6]}"
    return SweepFile(name, " ".join(overrides), "", (), {}, None)


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


def merged_overrides(file: SweepFile, overrides: Sequence[str]) -> list[str]:
    """The file's overrides and axes with those of the command line in their place; a later one replaces."""
    merged: dict[str, str] = {}
    own = [*file.overrides, *(f"{key}={value}" for key, value in file.axes.items())]
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
    combinations = expand(merged_overrides(file, overrides))
    runs = tuple(
        PlannedRun(combination, axes, compose_run(combination, config_dir))
        for combination, axes in combinations
    )
    # Where a sweep is written and tracked does not make it another one.
    telling = sorted(o for o in overrides if not o.startswith(("paths.", "tracking")))
    name = f"{file.name}-{digest(telling)[:6]}" if telling and file.axes else file.name
    return Sweep(file, name, _without_repeats(runs), runs[0].config.paths.output)


def find_sweep(name: str, overrides: Sequence[str], config_dir: Path | None) -> tuple[Sweep, list[str]]:
    """The planned sweep of a name, a file or a first override, and its overrides merged with those of its file."""
    if "=" in name:
        overrides = [name, *overrides]
        file = adhoc_sweep([o for o in overrides if not o.startswith("paths.")])
    else:
        file = read_sweep(name)
    return plan_sweep(file, overrides, config_dir), merged_overrides(file, overrides)


def _without_repeats(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Two combinations may describe the same run; it is done once."""
    return tuple({run.folder.path.name: run for run in reversed(runs)}.values())[::-1]

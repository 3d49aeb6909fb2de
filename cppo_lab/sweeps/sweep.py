"""Sweeps: all runs of a sweep file, composed and validated, and the manifest that lists them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cppo_lab.addresses import without_credentials
from cppo_lab.config.compose import compose_runs
from cppo_lab.config.identity import digest
from cppo_lab.config.overrides import with_plugins
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.files import write_atomically
from cppo_lab.manifests import read_sealed, sealed_text
from cppo_lab.sweeps.adhoc import (
    Naming,
    adhoc_sweep,
    command_line,
    distinguishing,
    refuse_other,
    saved_sweep,
    split_methods,
)
from cppo_lab.sweeps.expansion import Combination, axis_names, hydra_settings, merged_grids, values_set
from cppo_lab.sweeps.frozen_claims import frozen_for_manifest
from cppo_lab.sweeps.launchers import check_launchers
from cppo_lab.sweeps.study import split_multiple, sweep_runs, threshold_overrides
from cppo_lab.sweeps.sweep_file import SweepFile, read_sweep, split_scale, sweep_path
from cppo_lab.sweeps.trials import Trials
from cppo_lab.sweeps.tuned_points import (
    TunedPoint,
    TunedPoints,
    TunedRun,
    check_choices,
    read_tuned,
    refuse_tuning_seeds,
    tuned_runs,
)
from cppo_lab.tracking.run_folder import RunFolder, jsonable_config, run_folder


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: its overrides, the axis values among them, and its validated configuration.

    point: the tuned point that it is at, if any; overruled: what that would set and the sweep sets otherwise.
    """

    overrides: tuple[str, ...]
    axes: Mapping[str, str]
    config: RunConfig
    point: TunedPoint | None = None
    overruled: tuple[str, ...] = ()

    @cached_property
    def folder(self) -> RunFolder:
        """The run's folder, which may not exist yet."""
        return run_folder(self.config)

    @property
    def run_id(self) -> str:
        """Its identity, with which its folder's name ends."""
        return self.folder.path.name.rpartition("-")[2]

    @property
    def label(self) -> str:
        """The method and the other axis values, for display."""
        others = [f"{key}={value}" for key, value in self.axes.items() if key != "algo"]
        return " ".join([self.config.algo.name, *others])


@dataclass(frozen=True)
class Sweep:
    """A sweep with all its runs composed and validated."""

    file: SweepFile
    name: str
    runs: tuple[PlannedRun, ...]
    output: Path
    points: TunedPoints | None = None

    @property
    def folder(self) -> Path:
        """The folder of the manifest."""
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
        """sweep.json: the list of runs that the report reads."""
        return self.folder / "sweep.json"

    def manifest(self) -> dict[str, Any]:
        """The content of sweep.json by the sweep's file and the present state of its runs."""
        tuned = {} if self.points is None else {"tuned": self._tuned(self.points)}
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
                    "overrides": [without_credentials(override) for override in run.overrides],
                    "axes": dict(run.axes),
                    # Tells a run whose folder was deleted from one that never started.
                    "status": run.folder.status,
                }
                for run in self.runs
            ],
            **({"typed": list(self.file.typed)} if self.file.typed else {}),
            **({"of_methods": self.file.of_methods} if self.file.of_methods else {}),
            **tuned,
            **({"frozen": frozen} if (frozen := self._frozen()) else {}),
        }

    def _frozen(self) -> Mapping[str, Any]:
        """The frozen claims of the sweep as its file has it; one with overrides of its own is another sweep."""
        return frozen_for_manifest(self.file) if self.name == self.file.slug else {}

    def _tuned(self, points: TunedPoints) -> dict[str, Any]:
        """The tuned points of the runs, for the report."""
        used = {run.point.place: asdict(run.point) for run in self.runs if run.point is not None}
        for point in used.values():
            del point["tried"]
        return {
            "study": points.study,
            "sha256": points.sha256,
            "seeds": points.seeds,
            "points": [*used.values()],
        }

    def read_manifest(self) -> dict[str, Any]:
        """The content of sweep.json; empty before the sweep's first run."""
        return read_sealed(self.manifest_path, "remove it, and the same command makes it again")

    def write_manifest(self, **extra: Any) -> Path:
        """Update sweep.json. It is not rewritten without a change: its time tells whether a report is older."""
        known = self.read_manifest()
        manifest = jsonable_config({"created_at": _now()} | known | self.manifest() | extra)
        if manifest != known:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.manifest_path, sealed_text(manifest))
        return self.manifest_path


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def plan_sweep(
    file: SweepFile,
    overrides: Sequence[str],
    config_dir: Path | None = None,
    trials: Trials | None = None,
    composed: dict[tuple[str, ...], RunConfig] | None = None,
) -> Sweep:
    """Compose and validate every run of the sweep, of a study at the `trials` given.

    `composed` holds configurations that are known by their overrides, and is added to.

    Raises UserError before any of them starts.
    """
    overrides = with_plugins(file.plugins, overrides)
    overrides = [o for o in overrides if o not in hydra_settings(overrides)]
    found = sweep_runs(file, overrides, trials)
    axes = axis_names(file, found)
    points = None if file.tuned is None else read_tuned(file.tuned, file.path)
    tuned = [TunedRun(each) for each in found] if points is None else tuned_runs(file, points, found)
    runs = []
    for each, (run, config) in zip(
        tuned, _composed([each.run for each in tuned], config_dir, composed), strict=True
    ):
        values = {axis: each.value(axis) or _of_config(axis, config) for axis in axes}
        runs.append(PlannedRun(run.overrides, values, config, each.point, each.overruled))
    if points is not None:
        refuse_tuning_seeds(file, points, [run.config.seed for run in runs])
        check_choices(file, points, [(run.point, run.config) for run in runs])
    named = sorted(distinguishing(overrides))
    name = file.slug if file.typed or not named else f"{file.slug}-{digest(named)[:6]}"
    distinct = _without_repeats(runs)
    _refuse_same_place(file, distinct)
    return Sweep(file, name, distinct, runs[0].config.paths.output, points)


def _composed(
    runs: Sequence[Combination], config_dir: Path | None, known: dict[tuple[str, ...], RunConfig] | None
) -> list[tuple[Combination, RunConfig]]:
    """The runs with their configurations, multiples of a main threshold as the values that they stand for."""
    known = {} if known is None else known
    plain = [split_multiple(run) for run in runs]
    _compose(known, [run for run, _ in plain], config_dir)
    found = []
    for run, multiple in plain:
        at = threshold_overrides(known[run.overrides].algo, multiple)
        found.append(Combination((*run.overrides, *at), run.axes))
    _compose(known, found, config_dir)
    return [(run, known[run.overrides]) for run in found]


def _compose(
    known: dict[tuple[str, ...], RunConfig], runs: Sequence[Combination], config_dir: Path | None
) -> None:
    new = list(dict.fromkeys(run.overrides for run in runs if run.overrides not in known))
    known.update(zip(new, compose_runs(new, config_dir), strict=True))


def _refuse_same_place(file: SweepFile, runs: Sequence[PlannedRun]) -> None:
    """Raise UserError for different runs with the same values on every axis: they would count as one."""
    places: dict[tuple[tuple[str, str], ...], PlannedRun] = {}
    for run in runs:
        other = places.setdefault(tuple(run.axes.items()), run)
        if other is run:
            continue
        differing = _differing(other, run)
        settings = ", ".join(
            f"{key} to {first} and to {second}" for key, (first, second) in differing.items()
        )
        remedy = " ".join(f"{key}=…" for key in differing)
        raise UserError(
            f"sweep {file.slug}: {' '.join(f'{key}={value}' for key, value in run.axes.items())}: two grids of the "
            f"file set {settings} for it; give {remedy} as well."
        )


def _differing(one: PlannedRun, other: PlannedRun) -> dict[str, tuple[str, str]]:
    """The keys that the overrides of two runs set differently, with both values (a run's own default if unset)."""
    first, second = values_set(one.overrides), values_set(other.overrides)
    found = {}
    for key in dict.fromkeys((*first, *second)):
        values = first.get(key) or _shown(key, one.config), second.get(key) or _shown(key, other.config)
        if values[0] != values[1]:
            found[key] = values
    return found


def _shown(key: str, config: RunConfig) -> str:
    found = _at(key, config)
    return str(found) if isinstance(found, (str, int, float)) else "its default"


def _of_config(axis: str, config: RunConfig) -> str:
    """The configured value on an axis that only another grid varies; `none` for a key of `algo` that no rule reads."""
    found = _at(axis, config)
    if found is None and axis.startswith("algo."):
        return "none"
    if not isinstance(found, (str, int, float)):
        raise UserError(f"axes: {axis}: must be set in every grid of the sweep, since one of them varies it.")
    return str(found)


def _at(key: str, config: RunConfig) -> Any:
    """The value of a configuration at a dotted key; None for an unknown key."""
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part, None)
    return found


def find_sweep(
    name: str, overrides: Sequence[str], config_dir: Path | None, naming: Naming | None = None
) -> tuple[Sweep, list[list[str]]]:
    """The planned sweep of a name, a file or a first override, and the merged overrides of each of its grids.

    Raises UserError for whatever is wrong with the file, an override or a run, and for a `naming` of anything but
    overrides.
    """
    check_launchers(overrides, config_dir)
    if "=" in name:
        return _find_adhoc(with_plugins([], [name, *overrides]), config_dir, naming)
    # A plug-in may bring the sweep along.
    scale, overrides = split_scale(with_plugins([], overrides))
    if naming is not None and naming.given:
        raise UserError(
            f"{naming.given}: only applies to an ad-hoc sweep; {name} has its own name, baseline and title."
        )
    saved = saved_sweep(name, overrides) if sweep_path(name) is None else None
    if saved is not None:
        overrides = command_line(saved, overrides)
        return plan_sweep(saved, overrides, config_dir), merged_grids(saved, overrides)
    file = read_sweep(name, scale)
    of_method = next(iter(split_methods(overrides)[1].items()), None)
    if of_method is not None:
        raise UserError(
            f"{of_method[0]}:{of_method[1][0]}: only an ad-hoc sweep takes settings of one method; a sweep file has a "
            "grid of its own for them."
        )
    overrides = with_plugins(file.plugins, overrides)
    return plan_sweep(file, overrides, config_dir), merged_grids(file, overrides)


def _find_adhoc(
    given: list[str], config_dir: Path | None, naming: Naming | None
) -> tuple[Sweep, list[list[str]]]:
    if split_scale(given)[1] != given:
        raise UserError("scale: only sweep files have scales; name one, as in table1 scale=paper.")
    file = adhoc_sweep(distinguishing(given), naming)
    overrides = command_line(file, given)
    sweep = plan_sweep(file, overrides, config_dir)
    refuse_other(file, sweep.output)
    return sweep, merged_grids(file, overrides)


def _without_repeats(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Each run once: several combinations may describe the same run."""
    return tuple({run.folder.path.name: run for run in reversed(runs)}.values())[::-1]

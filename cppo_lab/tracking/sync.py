"""Compares tracking stores with the folders of sweeps and runs, and mends them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from cppo_lab.addresses import without_credentials
from cppo_lab.errors import UserError, first_line
from cppo_lab.files import read_object, write_atomically
from cppo_lab.manifests import read_sealed, sealed_text
from cppo_lab.tracking.mirrored_runs import ALONE, MIRROR_FILE, recorded_stores
from cppo_lab.tracking.mirrored_sweep import MANIFEST, MirroredSweep, sweep_status
from cppo_lab.tracking.mlflow_store import Store
from cppo_lab.tracking.run_folder import RunFolder, Status
from cppo_lab.tracking.store_address import default_experiment, default_uri, store_name, tracking_uri


@dataclass(frozen=True)
class Place:
    """A store and an experiment in it; None for what the runs were tracked in."""

    uri: str | None = None
    experiment: str | None = None


@dataclass(frozen=True)
class Compared:
    """A run or a sweep, and how MLflow's record of it differed, in words. `failed`: it could not be compared."""

    name: str
    differences: tuple[str, ...]
    failed: bool = False


@dataclass(frozen=True)
class RecordedSweep:
    """A sweep as its sweep.json tells it."""

    output: Path
    name: str

    @property
    def folder(self) -> Path:
        """The folder of sweep.json."""
        return self.output / "sweeps" / self.name

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The content of sweep.json. Raises UserError if it is damaged."""
        return read_sealed(self.folder / MANIFEST, "remove it, and the sweep's own command makes it again")

    @property
    def is_readable(self) -> bool:
        """Whether sweep.json is what was written."""
        try:
            return self.manifest is not None
        except UserError:
            return False

    @property
    def runs(self) -> list[tuple[RunFolder, str]]:
        """The folders of the runs that have begun, each with its values on the axes other than the method."""
        found = []
        for entry in self.manifest.get("runs", []):
            folder = RunFolder(self.output / "runs" / Path(str(entry["folder"])).name)
            if folder.written_at is not None:
                others = [f"{key}={value}" for key, value in entry["axes"].items() if key != "algo"]
                found.append((folder, " ".join(others)))
        return found

    @property
    def status(self) -> str:
        """MLflow's status of the sweep."""
        planned = len(self.manifest.get("runs", []))
        statuses = [_status(folder) for folder, _ in self.runs]
        return sweep_status([*statuses, *[None] * (planned - len(statuses))])

    def write_statuses(self) -> None:
        """Bring the statuses in sweep.json up to date."""
        known = {entry["folder"]: entry for entry in self.manifest["runs"]}
        runs = [entry | {"status": _status(RunFolder(self.output / name))} for name, entry in known.items()]
        if runs != self.manifest["runs"]:
            self.manifest["runs"] = runs
            write_atomically(self.folder / MANIFEST, sealed_text(self.manifest))

    def mirrored(self, store: Store) -> MirroredSweep:
        """Its MLflow run."""
        is_same = self.manifest.get("tracking_store") == store.name
        axes = {key: ",".join(values) for key, values in self.manifest.get("axes", {}).items()}
        known = self.manifest.get("mlflow_run_id") if is_same else None
        return MirroredSweep(store, self.folder, self.name, {"sweep": self.name, "axes": axes}, known)


class Stores:
    """The stores of an output folder's runs, each opened once."""

    def __init__(self, output: Path, asked: Place, *, only_check: bool = False) -> None:
        self._output, self._asked, self._only_check = output, asked, only_check
        self._open: dict[tuple[str, str], Store] = {}

    @property
    def is_asked(self) -> bool:
        """Whether a store was asked for."""
        return self._asked.uri is not None

    def of(self, folder: RunFolder | None, name: str | None = None, experiment: str | None = None) -> Store:
        """The store that a run was tracked in, or the one asked for. Raises UserError if it cannot be used.

        `name` and `experiment` are what is known of it without a run's folder.
        """
        tracking = {} if folder is None else tracking_of(folder)
        uri = self._asked.uri or tracking.get("uri") or self._recorded(folder, name)
        # What is written down has no password; the environment may have it.
        known = tracking_uri(None, self._output)
        if store_name(known, self._output) == store_name(uri, self._output):
            uri = known
        place = (
            uri,
            self._asked.experiment or experiment or tracking.get("experiment") or default_experiment(),
        )
        if place not in self._open:
            self._open[place] = Store(*place, self._output, makes=not self._only_check)
        return self._open[place]

    def _recorded(self, folder: RunFolder | None, name: str | None) -> str:
        """The address of the store that a record is in; for none, the one that runs are sent to now."""
        now = tracking_uri(None, self._output)
        names = [name] if name else [] if folder is None else recorded_stores(folder.path)
        if not names or store_name(now, self._output) in names:
            return now
        return default_uri(self._output) if names[0] == "default" else names[0]


def tracking_of(folder: RunFolder) -> Mapping[str, Any]:
    """The section `tracking` of a run's configuration."""
    path = folder.path / "config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content.get("tracking") or {}


def sync_sweep(sweep: RecordedSweep, stores: Stores, *, only_check: bool) -> Iterator[Compared]:
    """Compare a sweep and its runs with its store, and unless `only_check` send what is missing."""
    runs = sweep.runs
    store = stores.of(runs[0][0] if runs else None, sweep.manifest.get("tracking_store"))
    mirrored = sweep.mirrored(store)
    run_id, found = mirrored.check(sweep.status)
    if only_check:
        yield Compared(sweep.name, tuple(found))
        for folder, _ in runs:
            yield tried(folder.path.name, partial(_check, store, folder, run_id))
        return
    parent = mirrored.open(sweep.status)
    sweep.write_statuses()
    mirrored.describe(parent)
    yield Compared(sweep.name, tuple(found))
    children = store.runs.children(parent)

    def update(folder: RunFolder, values: str) -> list[str]:
        info = folder.info
        name = f"{info.get('method')} {values}".strip()
        known = children.get(str(info.get("run_id")), [])
        return store.runs.update(folder, parent, name, known=known, thorough=True)

    for folder, values in runs:
        yield tried(folder.path.name, partial(update, folder, values))


def sync_run(folder: RunFolder, stores: Stores, *, only_check: bool) -> Compared:
    """Compare a run on its own with its store, and unless `only_check` send what is missing."""

    def compare() -> list[str]:
        store = stores.of(folder)
        if only_check:
            return store.runs.check(folder, None)
        name = folder.info.get("name", folder.path.name)
        return store.runs.update(folder, None, name, thorough=True)

    return tried(folder.path.name, compare)


def _check(store: Store, folder: RunFolder, parent: str | None) -> list[str]:
    return ["is missing"] if parent is None else store.runs.check(folder, parent)


def tried(name: str, action: Callable[[], list[str]]) -> Compared:
    """What `action` found; a damaged run must not keep the others from being compared."""
    try:
        return Compared(name, tuple(action()))
    except Exception as error:
        # Files are damaged in many ways, and each store has its own errors.
        return _failed(name, error)


def guarded(name: str, compared: Callable[[], Iterable[Compared]]) -> Iterator[Compared]:
    """What is compared, up to an error, which is told as one that `name` has."""
    try:
        yield from compared()
    except Exception as error:
        yield _failed(name, error)


def _failed(name: str, error: Exception) -> Compared:
    said = without_credentials(str(error) if isinstance(error, UserError) else first_line(error))
    return Compared(name, (f"cannot be compared: {said}",), failed=True)


def recorded_sweeps(output: Path) -> list[RecordedSweep]:
    """The sweeps of an output folder."""
    return [RecordedSweep(output, path.parent.name) for path in sorted(output.glob(f"sweeps/*/{MANIFEST}"))]


def is_tracked(sweep: RecordedSweep) -> bool:
    """Whether the sweep was sent to a store; True for one whose sweep.json is damaged, which is to be told."""
    try:
        return "tracking_store" in sweep.manifest
    except UserError:
        return True


def runs_alone(output: Path, sweeps: list[RecordedSweep]) -> list[RunFolder]:
    """The tracked runs that were trained on their own, or by no sweep that is still there."""
    inside = {folder.path.name for sweep in sweeps if sweep.is_readable for folder, _ in sweep.runs}
    folders = [RunFolder(path.parent) for path in sorted(output.glob("runs/*/run.json"))]
    return [
        folder
        for folder in folders
        if _was_sent_alone(folder) or (folder.path.name not in inside and _is_tracked(folder))
    ]


def _is_tracked(folder: RunFolder) -> bool:
    """Whether a run is tracked; True for one whose configuration is damaged, which is to be told."""
    try:
        return bool(tracking_of(folder).get("enabled"))
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return True


def _was_sent_alone(folder: RunFolder) -> bool:
    try:
        return any(ALONE in under for under in read_object(folder.path / MIRROR_FILE).values())
    except (UserError, TypeError):
        return False


def _status(folder: RunFolder) -> Status | None:
    """The status of a run; None for one that cannot be read, which is said where it is compared."""
    try:
        return folder.present_status
    except UserError:
        return None

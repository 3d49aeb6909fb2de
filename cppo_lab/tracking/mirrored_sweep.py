"""Brings MLflow's record of a sweep, the parent of its runs, to what the sweep's folder says."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from cppo_lab.errors import UserError
from cppo_lab.failpoints import failpoint
from cppo_lab.files import read_object, write_atomically
from cppo_lab.tracking.mirrored_runs import LOCK_FILE, MIRROR_FILE
from cppo_lab.tracking.mlflow_names import KIND_TAG, STATUS, TOKEN_TAG
from cppo_lab.tracking.mlflow_store import Store
from cppo_lab.tracking.run_content import flat
from cppo_lab.tracking.run_folder import Status

if TYPE_CHECKING:
    from mlflow.entities import Run

MANIFEST = "sweep.json"
_LOCK_PATIENCE_S = 60.0


def sweep_status(statuses: Iterable[Status | None]) -> str:
    """MLflow's status of a sweep by those of its runs: KILLED if some are still to do and nobody does them."""
    found = set(statuses)
    for status in ("RUNNING", "FAILED"):
        if status in found:
            return STATUS[status]
    return STATUS["FINISHED"] if found == {"FINISHED"} else STATUS["INTERRUPTED"]


@dataclass(frozen=True)
class MirroredSweep:
    """The MLflow run of a sweep, in whose `folder` sweep.json lies. `legacy_id` is what sweep.json says of it."""

    store: Store
    folder: Path
    name: str
    params: Mapping[str, Any]
    legacy_id: str | None = None

    def open(self, status: str = "RUNNING") -> str:
        """The ID of the MLflow run, which is made if there is none, in this status."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / LOCK_FILE, timeout=_LOCK_PATIENCE_S):
            run = self._find()
            run_id = self._create() if run is None else run.info.run_id
            sent = {} if run is None else run.data.params
            for key, text in flat(self.params).items():
                if key not in sent:
                    self.store.client.log_param(run_id, key, text)
            if run is None or run.info.status != status:
                self._set_status(run_id, status)
            if self._entry().get("run_id") != run_id:
                self._note(run_id=run_id)
        return run_id

    def describe(self, run_id: str) -> None:
        """Send sweep.json, replacing an earlier one."""
        if (self.folder / MANIFEST).exists():
            self.store.client.log_artifact(run_id, str(self.folder / MANIFEST))

    def check(self, status: str) -> tuple[str | None, list[str]]:
        """The ID of the MLflow run, and how it differs from the folder, in words. Writes nothing."""
        run = self._find()
        if run is None:
            return None, ["is missing"]
        found = [] if run.info.status == status else [f"status {run.info.status}, not {status}"]
        sizes = {each.path: each.file_size for each in self.store.client.list_artifacts(run.info.run_id)}
        manifest = self.folder / MANIFEST
        if manifest.exists() and sizes.get(MANIFEST) != manifest.stat().st_size:
            found.append(f"files {MANIFEST}")
        return run.info.run_id, found

    def _set_status(self, run_id: str, status: str) -> None:
        if status == "RUNNING":
            self.store.client.update_run(run_id, status=status)
        else:
            self.store.client.set_terminated(run_id, status)

    def _find(self) -> Run | None:
        entry = self._entry()
        client, experiment = self.store.client, [self.store.experiment_id]
        known = entry.get("run_id") or self.legacy_id
        run = None if known is None else self._get(known)
        if run is None and entry.get("token"):
            found = client.search_runs(experiment, f"tags.`{TOKEN_TAG}` = '{entry['token']}'", max_results=1)
            run = found[0] if found else None
        return run

    def _get(self, run_id: str) -> Run | None:
        """A run; None if the store says that it has none of this ID, or that it was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            run: Run = self.store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _create(self) -> str:
        token = uuid.uuid4().hex
        self._note(token=token)
        tags = {KIND_TAG: "sweep", "mlflow.source.name": "cppo-lab sweep", TOKEN_TAG: token}
        run = self.store.client.create_run(self.store.experiment_id, run_name=self.name, tags=tags)
        failpoint("parent-created")
        return str(run.info.run_id)

    def _entry(self) -> dict[str, str]:
        return self._read().get(self.store.name, {})

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            return read_object(self.folder / MIRROR_FILE)
        except UserError:
            # It only saves a search.
            return {}

    def _note(self, **changes: str) -> None:
        content = self._read()
        content[self.store.name] = content.get(self.store.name, {}) | changes
        write_atomically(self.folder / MIRROR_FILE, json.dumps(content))

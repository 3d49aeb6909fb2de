"""A connection to one tracking store and experiment. A store that fails never affects a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from cppo_lab.addresses import without_credentials
from cppo_lab.errors import UserError, first_line
from cppo_lab.files import free_bytes
from cppo_lab.tracking.mirrored_runs import MirroredRuns
from cppo_lab.tracking.sqlite_store import make_sqlite_store, move_artifacts, sqlite_problem
from cppo_lab.tracking.store_address import sqlite_path, store_name

_REASON_LENGTH = 200
_NO_ROOM_BYTES = 256 << 10
_ARTIFACTS = "mlartifacts"
_Value = TypeVar("_Value")


class Store:
    """A connection to one tracking store and experiment.

    runs: the MLflow runs of run folders. address: the store's address, to be shown.

    makes: whether a store or an experiment that does not exist is made; nothing is written otherwise.

    Raises UserError when the store cannot be reached, is locked, half made, or is not MLflow's, or the experiment was
    deleted.
    """

    def __init__(self, uri: str, experiment: str, output: Path, *, makes: bool = True) -> None:
        # Runs are nested by tags; an inherited run id would make them all write into one run.
        os.environ.pop("MLFLOW_RUN_ID", None)
        quiet_client()
        check_sqlite(uri)
        from mlflow import MlflowClient

        self._makes = makes
        path = sqlite_path(uri)
        if not makes and path is not None and not path.exists():
            raise _unusable(uri, "it does not exist")
        self.uri, self.name, self.address = uri, store_name(uri, output), without_credentials(uri)
        lock = output / ".mlflow.lock"
        is_first = not lock.exists()
        try:
            output.mkdir(parents=True, exist_ok=True)
            with FileLock(lock, timeout=120):
                make_sqlite_store(uri)
                self._client = MlflowClient(uri)
                self.experiment_id = self._experiment(experiment, output)
        except Exception as error:
            if is_first:
                # Leave nothing behind.
                lock.unlink(missing_ok=True)
            if isinstance(error, UserError):
                raise
            # Each store has its own errors: SQLAlchemy's, requests', MLflow's, the operating system's.
            raise _unusable(uri, first_line(error)[:_REASON_LENGTH]) from error
        self.runs = MirroredRuns(self._client, self.experiment_id, self.name, is_own=self.name == "default")

    @property
    def client(self) -> Any:
        """MLflow's own client of the store."""
        return self._client

    def _experiment(self, name: str, output: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        location = (output / _ARTIFACTS).resolve().as_uri() if self.uri.startswith("sqlite:") else None
        if found is not None:
            if found.lifecycle_stage == "deleted":
                raise UserError(
                    f"tracking.experiment={name}: was deleted from the MLflow store {self.address}; give another "
                    f"name, or restore it: MLFLOW_TRACKING_URI={self.address} mlflow experiments restore -x "
                    f"{found.experiment_id}."
                )
            before = str(found.artifact_location)
            has_moved = (
                before != location and before.startswith("file:") and before.endswith(f"/{_ARTIFACTS}")
            )
            if self._makes and self.name == "default" and location is not None and has_moved:
                # The output folder was moved or copied, and its files are not in the old place.
                move_artifacts(self.uri, found.experiment_id, before, location)
            return str(found.experiment_id)
        if not self._makes:
            raise UserError(f"the MLflow store {self.address} has no experiment {name}")
        # MLflow then opens on runs and metrics rather than on its GenAI view.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        try:
            return str(self._client.create_experiment(name, artifact_location=location, tags=tags))
        except Exception:
            # Another machine may have made it in this moment.
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def trying(self, action: Callable[[], _Value]) -> _Value:
        """The value of `action`. Raises UserError when the store cannot be used."""
        try:
            return action()
        except Exception as error:
            # Each store has its own errors: SQLAlchemy's, requests', MLflow's, the operating system's.
            raise _unusable(self.uri, first_line(error)[:_REASON_LENGTH]) from error


def _unusable(uri: str, reason: str) -> UserError:
    path = sqlite_path(uri)
    if path is not None and (free := free_bytes(path.parent)) < _NO_ROOM_BYTES:
        # SQLite calls it an I/O error.
        reason = f"there is no room left on its disk, of which {free / 2**20:.1f} MiB are free: {reason}"
    return UserError(
        f"tracking.uri={without_credentials(uri)}: the MLflow store cannot be used ({without_credentials(reason)}); "
        "fix it, or run without it: tracking=none."
    )


def quiet_client() -> None:
    """Make MLflow's client give up on a store within seconds and print nothing."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # They log the tracebacks of errors that they raise as well, and those are said in a sentence.
    for name in ("mlflow.store.db.utils", "sqlalchemy.pool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def check_sqlite(uri: str) -> None:
    """Raise UserError for a SQLite store that cannot be used."""
    problem = sqlite_problem(uri)
    if problem:
        raise _unusable(uri, problem)

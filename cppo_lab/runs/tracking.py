"""MLflow as a window on run folders: reads what a run wrote, and sends what was not sent yet.

One process mirrors a sweep (its parent), so that nobody races for the SQLite file; a run started alone, or by a
Hydra launcher, mirrors itself. Nothing here decides what a run does: a store that fails later costs no result.
"""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

from cppo_lab.errors import UserError
from cppo_lab.runs.folder import RunFolder, write_atomically

MIRROR_FILE = "mlflow.json"
_ALONE = "none"
_BATCH = 500
_LOCK_PATIENCE_S = 10.0
_PARAM_LENGTH = 500
_STATUS = {"FINISHED": "FINISHED", "FAILED": "FAILED", "INTERRUPTED": "KILLED", "RUNNING": "RUNNING"}


def default_uri(output: Path) -> str:
    """The SQLite store in the output folder."""
    return f"sqlite:///{(output / 'mlflow.db').resolve()}"


def tracking_uri(uri: str | None, output: Path) -> str:
    """The store to use: the configured one, `$MLFLOW_TRACKING_URI`, or a SQLite file in the output folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(output)


def store_name(uri: str, output: Path) -> str:
    """What run folders call a store: its address, or "default" for the one that moves along with them."""
    is_default = (
        uri.startswith("sqlite:///")
        and Path(uri.removeprefix("sqlite:///")).resolve() == (output / "mlflow.db").resolve()
    )
    return "default" if is_default else uri


def ui_command(uri: str, output: Path) -> str:
    """The shell command that shows the store in a browser."""
    if uri.startswith("sqlite:"):
        path = (output / "mlflow.db").resolve()
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"mlflow ui --backend-store-uri {shlex.quote(f'sqlite:///{shown}')}"
    return f"open {uri}"


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested configuration as flat `a.b.c` parameters, values cut to what MLflow accepts."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)[:_PARAM_LENGTH]
    return found


class Store:
    """A connection to one tracking store and experiment.

    Raises UserError when the store cannot be reached, is locked, or is not MLflow's.
    """

    def __init__(self, uri: str, experiment: str, output: Path) -> None:
        # The lab's own runs are nested by tags; an inherited run id would make children write into it.
        os.environ.pop("MLFLOW_RUN_ID", None)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        check_sqlite(uri)
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient

        self.uri, self.name = uri, store_name(uri, output)
        lock = output / ".mlflow.lock"
        is_first = not lock.exists()
        try:
            with FileLock(lock, timeout=120):
                self._client = MlflowClient(uri)
                self.experiment_id = self._experiment(experiment, output)
        except Exception as error:
            if is_first:
                # A refused request leaves nothing behind.
                lock.unlink(missing_ok=True)
            # Each store has its own errors: SQLAlchemy's, requests', MLflow's, the operating system's.
            raise _unusable(uri, first_line(error)) from error

    def _experiment(self, name: str, output: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (output / "mlartifacts").resolve().as_uri() if self.uri.startswith("sqlite:") else None
        # MLflow's page then opens on runs and metrics rather than on its tools for language-model applications.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, artifact_location=location, tags=tags))

    def parent_run(self, name: str, params: Mapping[str, Any], known: str | None = None) -> str:
        """The MLflow run of a sweep: `known` if it still exists, else a new one.

        Raises UserError when the store cannot be used.
        """
        try:
            if known and self._exists(known):
                self._client.set_terminated(known, "RUNNING")
                return known
            run = self._client.create_run(
                self.experiment_id,
                run_name=name,
                tags={"cppo_lab.kind": "sweep", "mlflow.source.name": "cppo-lab sweep"},
            )
            for key, value in flat(params).items():
                self._client.log_param(run.info.run_id, key, value)
        except Exception as error:
            raise _unusable(self.uri, first_line(error)) from error
        return str(run.info.run_id)

    def evaluation(
        self, name: str, params: Mapping[str, Any], metrics: Mapping[str, float], files: list[Path]
    ) -> str:
        """Write a finished evaluation as one run, and return its id. Raises UserError when the store cannot be used."""
        import math

        try:
            run = self._client.create_run(
                self.experiment_id,
                run_name=name,
                tags={"cppo_lab.kind": "evaluation", "mlflow.source.name": "cppo-lab eval"},
            )
            for key, value in flat(params).items():
                self._client.log_param(run.info.run_id, key, value)
            for key, number in metrics.items():
                if math.isfinite(number):
                    self._client.log_metric(run.info.run_id, key, number)
            for file in files:
                self._client.log_artifact(run.info.run_id, str(file))
            self._client.set_terminated(run.info.run_id)
        except Exception as error:
            # Each store has its own errors: SQLAlchemy's, requests', MLflow's, the operating system's.
            raise _unusable(self.uri, first_line(error)) from error
        return str(run.info.run_id)

    def close_parent(self, run_id: str, succeeded: bool, files: list[Path]) -> None:
        """End a sweep's run, with the files that describe it."""
        for file in files:
            if file.exists():
                self._client.log_artifact(run_id, str(file))
        self._client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException:
            return False

    def mirror(self, folder: RunFolder, parent: str | None, name: str) -> bool:
        """Send what is new in a run folder: params once, metrics by step, status, and at the end the artifacts.

        A run that several sweeps share has one MLflow run under each of their parents. Returns whether the run has
        ended, so that everything is sent unless it goes on.
        """
        info = folder.info
        if not info:
            return False
        file = folder.path / MIRROR_FILE
        # By store, and in it by parent.
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        under = known.setdefault(self.name, {})
        state = under.get(parent or _ALONE)
        if state is None or not self._exists(state["run_id"]):
            state = {"run_id": self._create(info, parent, name), "step": -1, "status": None}
            under[parent or _ALONE] = state
            # At once: a store that fails from here on gets no second run for this folder.
            write_atomically(file, json.dumps(known))
        if state["status"] is None:
            self._describe(state["run_id"], folder)
        new = [row for row in folder.rows("metrics.jsonl") if row["step"] > state["step"]]
        self._send_metrics(state["run_id"], new)
        if new:
            state["step"] = new[-1]["step"]
        status = _STATUS[info["status"]]
        if status != state["status"]:
            self._set_status(state["run_id"], folder, info, status)
            state["status"] = status
        write_atomically(file, json.dumps(known))
        return status != "RUNNING"

    def _create(self, info: Mapping[str, Any], parent: str | None, name: str) -> str:
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        tags = {
            "cppo_lab.kind": "run",
            "mlflow.source.name": "cppo-lab train",
            "cppo_lab.run_id": info["run_id"],
            "cppo_lab.method": info["method"],
        }
        if info.get("theorem_1"):
            tags["cppo_lab.theorem_1"] = info["theorem_1"]
        if info["git"]["commit"]:
            tags |= {
                "mlflow.source.git.commit": info["git"]["commit"],
                "cppo_lab.dirty": str(info["git"]["dirty"]),
            }
        tags |= {f"version.{name}": version for name, version in info["versions"].items()}
        if parent:
            tags[MLFLOW_PARENT_RUN_ID] = parent
        return str(self._client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id)

    def _describe(self, run_id: str, folder: RunFolder) -> None:
        import yaml
        from mlflow.entities import Param

        config = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
        params = [Param(key, value) for key, value in flat(config).items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(run_id, params=params[start : start + 100])
        for name in ("config.yaml", "uncommitted.diff"):
            if (folder.path / name).exists():
                self._client.log_artifact(run_id, str(folder.path / name))

    def _send_metrics(self, run_id: str, rows: list[dict[str, Any]]) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now, row["step"])
            for row in rows
            for key, value in row.items()
            if key != "step" and value is not None
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])

    def _set_status(self, run_id: str, folder: RunFolder, info: Mapping[str, Any], status: str) -> None:
        if status == "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
            return
        if info.get("reason"):
            self._client.set_tag(run_id, "cppo_lab.reason", info["reason"])
        for name in ("run.json", "metrics.jsonl", "timings.jsonl", "profiles.jsonl", "agreement.jsonl"):
            if (folder.path / name).exists():
                self._client.log_artifact(run_id, str(folder.path / name))
        samples = sorted((folder.path / "samples").glob("*.jsonl"))
        if samples:
            self._client.log_artifact(run_id, str(samples[-1]), "samples")
        self._client.set_terminated(run_id, status)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind when it has none; at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _unusable(uri: str, reason: str) -> UserError:
    return UserError(
        f"tracking.uri={uri}: the MLflow store cannot be used ({reason}); "
        "correct it, or go on without it by tracking=none."
    )


def check_sqlite(uri: str) -> None:
    """Refuse a SQLite store that is locked, not writable or no database, without the long waits of its users.

    Raises UserError. Does nothing for another store, or for a file that does not exist yet.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=_LOCK_PATIENCE_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        locked = "locked by another process" if "locked" in str(error) else str(error)
        raise _unusable(uri, locked) from error

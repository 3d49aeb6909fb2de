"""Copies run folders to MLflow, sending only what was not sent before.

The parent process mirrors all runs of a sweep, so that nothing competes for the SQLite file; a run started alone, or
by a Hydra launcher, mirrors itself. A store that fails never affects a run.
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

import yaml
from filelock import FileLock

from cppo_lab.errors import UserError, first_line
from cppo_lab.files import write_atomically
from cppo_lab.paths import conf_dir
from cppo_lab.tracking.run_folder import MASKED_TOKENS, RunFolder

MIRROR_FILE = "mlflow.json"
_ALONE = "none"
_BATCH = 500
_LOCK_PATIENCE_S = 10.0
_PARAM_LENGTH = 500
_REASON_LENGTH = 200
# Marks a row with token traces in a sample file; inside a string the quotes would be escaped.
_TOKENS = '"tokens": {'
_STATUS = {"FINISHED": "FINISHED", "FAILED": "FAILED", "INTERRUPTED": "KILLED", "RUNNING": "RUNNING"}

# Tags that `cppo-lab report --mlflow` reads.
KIND_TAG = "cppo_lab.kind"
RUN_ID_TAG = "cppo_lab.run_id"
METHOD_TAG = "cppo_lab.method"
REASON_TAG = "cppo_lab.reason"
DIVERGED_TAG = "cppo_lab.diverged"
STARTING_POLICY_TAG = "cppo_lab.starting_policy"
RESULT_VERSION_TAG = "cppo_lab.result_version"
DIRTY_TAG = "cppo_lab.dirty"
VERSION_TAG = "version."
RUN_FILES = (
    "run.json", "metrics.jsonl", "timings.jsonl", "profiles.jsonl", "agreement.jsonl", MASKED_TOKENS
)  # fmt: skip


def default_uri(output: Path) -> str:
    """The SQLite store in the output folder."""
    return f"sqlite:///{(output / 'mlflow.db').resolve()}"


def tracking_uri(uri: str | None, output: Path) -> str:
    """The store to use: the configured one, `$MLFLOW_TRACKING_URI`, or a SQLite file in the output folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(output)


def default_experiment() -> str:
    """The experiment that runs are tracked in unless `tracking.experiment` says otherwise."""
    content = yaml.safe_load((conf_dir() / "tracking" / "mlflow.yaml").read_text(encoding="utf-8"))
    return str(content["experiment"])


def store_name(uri: str, output: Path) -> str:
    """The name of a store in run folders: its URI, or "default" for the one in the same output folder."""
    is_default = (
        uri.startswith("sqlite:///")
        and Path(uri.removeprefix("sqlite:///")).resolve() == (output / "mlflow.db").resolve()
    )
    return "default" if is_default else uri


def ui_command(uri: str, output: Path) -> str:
    """The shell command that opens the store in a browser."""
    if uri.startswith("sqlite:"):
        path = (output / "mlflow.db").resolve()
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"mlflow ui --backend-store-uri {shlex.quote(f'sqlite:///{shown}')}"
    return f"open {uri}"


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as flat `a.b.c` parameters, values truncated to MLflow's limit."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)[:_PARAM_LENGTH]
    return found


class Store:
    """A connection to one tracking store and experiment.

    Raises UserError when the store cannot be reached, is locked, or is not MLflow's, or the experiment was deleted.
    """

    def __init__(self, uri: str, experiment: str, output: Path) -> None:
        # Runs are nested by tags; an inherited run id would make them all write into one run.
        os.environ.pop("MLFLOW_RUN_ID", None)
        quiet_client()
        check_sqlite(uri)
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
                # Leave nothing behind.
                lock.unlink(missing_ok=True)
            if isinstance(error, UserError):
                raise
            # Each store has its own errors: SQLAlchemy's, requests', MLflow's, the operating system's.
            raise _unusable(uri, first_line(error)) from error

    def _experiment(self, name: str, output: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                raise UserError(
                    f"tracking.experiment={name}: was deleted from the MLflow store {self.uri}; give another name, or "
                    f"restore it: MLFLOW_TRACKING_URI={self.uri} mlflow experiments restore -x {found.experiment_id}."
                )
            return str(found.experiment_id)
        location = (output / "mlartifacts").resolve().as_uri() if self.uri.startswith("sqlite:") else None
        # MLflow then opens on runs and metrics rather than on its GenAI view.
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
                tags={KIND_TAG: "sweep", "mlflow.source.name": "cppo-lab sweep"},
            )
            for key, value in flat(params).items():
                self._client.log_param(run.info.run_id, key, value)
        except Exception as error:
            raise _unusable(self.uri, first_line(error)) from error
        return str(run.info.run_id)

    def evaluation(
        self, name: str, params: Mapping[str, Any], metrics: Mapping[str, float], files: list[Path]
    ) -> str:
        """Log a finished evaluation as one run and return its ID. Raises UserError when the store cannot be used."""
        import math

        try:
            run = self._client.create_run(
                self.experiment_id,
                run_name=name,
                tags={KIND_TAG: "evaluation", "mlflow.source.name": "cppo-lab eval"},
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

    def describe_parent(self, run_id: str, files: list[Path]) -> None:
        """Send the files that describe a sweep, replacing earlier ones."""
        for file in files:
            if file.exists():
                self._client.log_artifact(run_id, str(file))

    def close_parent(self, run_id: str, succeeded: bool, files: list[Path]) -> None:
        """End the run of a sweep and send the files that describe it."""
        self.describe_parent(run_id, files)
        self._client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException:
            return False

    def mirror(self, folder: RunFolder, parent: str | None, name: str) -> bool:
        """Send new data of a run folder: params once, metrics by step, status, and artifacts at the end.

        A run shared by several sweeps has one MLflow run under each parent. Returns whether the run has ended.
        """
        info = folder.info
        if not info:
            return False
        file = folder.path / MIRROR_FILE
        # By store, then by parent.
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        under = known.setdefault(self.name, {})
        state = under.get(parent or _ALONE)
        if state is None or not self._exists(state["run_id"]):
            state = {"run_id": self._create(info, parent, name), "step": -1, "status": None}
            under[parent or _ALONE] = state
            # At once, so that a failure from here on cannot lead to a second MLflow run for this folder.
            write_atomically(file, json.dumps(known))
        if state["status"] is None:
            self._describe(state["run_id"], folder)
        start = (info.get("starting_policy") or {}).get("recipe")
        if start != state.get("start"):
            # Known only after the warm-up; needed to pair runs, including those that never end.
            self._client.set_tag(state["run_id"], STARTING_POLICY_TAG, start)
            state["start"] = start
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
            KIND_TAG: "run",
            "mlflow.source.name": "cppo-lab train",
            RUN_ID_TAG: info["run_id"],
            METHOD_TAG: info["method"],
        }
        if info.get("theorem_1"):
            tags["cppo_lab.theorem_1"] = info["theorem_1"]
        if info.get("result_version"):
            tags[RESULT_VERSION_TAG] = str(info["result_version"])
        if info["git"]["commit"]:
            tags |= {
                "mlflow.source.git.commit": info["git"]["commit"],
                DIRTY_TAG: str(info["git"]["dirty"]),
            }
        tags |= {f"{VERSION_TAG}{name}": version for name, version in info["versions"].items()}
        if parent:
            tags[MLFLOW_PARENT_RUN_ID] = parent
        return str(self._client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id)

    def _describe(self, run_id: str, folder: RunFolder) -> None:
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
            self._client.set_tag(run_id, REASON_TAG, info["reason"])
        if "diverged" in info:
            self._client.set_tag(run_id, DIVERGED_TAG, str(info["diverged"]))
        for name in RUN_FILES:
            if (folder.path / name).exists():
                self._client.log_artifact(run_id, str(folder.path / name))
        for path in _telling_samples(folder.path / "samples"):
            self._client.log_artifact(run_id, str(path), "samples")
        self._client.set_terminated(run_id, status)


def _telling_samples(folder: Path) -> list[Path]:
    """The sample files that a report reads: the last one and those with token traces."""
    files = sorted(folder.glob("*.jsonl"))
    return [path for path in files[:-1] if _TOKENS in path.read_text(encoding="utf-8")] + files[-1:]


def _unusable(uri: str, reason: str) -> UserError:
    return UserError(
        f"tracking.uri={uri}: the MLflow store cannot be used ({reason[:_REASON_LENGTH]}); "
        "fix it, or run without it: tracking=none."
    )


def quiet_client() -> None:
    """Make MLflow's client give up on a store within seconds and print nothing."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def sqlite_problem(uri: str) -> str | None:
    """Why a SQLite store cannot be used (locked, not writable, no database), found out without MLflow's long waits.

    None when it can be, for another store, or for a file that does not exist yet.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=_LOCK_PATIENCE_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        return "locked by another process" if "locked" in str(error) else str(error)
    return None


def check_sqlite(uri: str) -> None:
    """Raise UserError for a SQLite store that cannot be used."""
    problem = sqlite_problem(uri)
    if problem:
        raise _unusable(uri, problem)

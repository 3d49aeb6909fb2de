"""One run, or one sweep, as an MLflow server knows it.

A run that sent its files is downloaded once and read like any run folder. One that did not, such as a run that goes
on, is read from its parameters, metrics and tags.
"""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cppo_lab.analysis.load.axes import NAME_OF_CHOICE
from cppo_lab.analysis.load.run_record import RunRecord, flatten, read_config, read_run
from cppo_lab.files import write_atomically
from cppo_lab.tracking.mlflow_names import (
    DIRTY_TAG,
    DIVERGED_TAG,
    METHOD_TAG,
    REASON_TAG,
    RESULT_VERSION_TAG,
    RUN_FILES,
    RUN_ID_TAG,
    STARTING_POLICY_TAG,
    VERSION_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_STATUS = {"FINISHED": "FINISHED", "FAILED": "FAILED", "KILLED": "INTERRUPTED"}
_MARKER = "fetched.json"
_MANIFEST = "sweep.json"
_SAMPLES = re.compile(r"samples/step_\d+\.jsonl")


def has_ended(run: Run) -> bool:
    """Whether MLflow says that the run is over, however it ended."""
    return run.info.status in _STATUS


def folder_name(run: Run) -> str:
    """The name of the run's folder, as the lab gives it."""
    return safe_name(f"{run.data.tags.get(METHOD_TAG, 'run')}-{run.data.tags[RUN_ID_TAG]}")


def safe_name(name: str) -> str:
    """A name from the network as one that stays in its folder."""
    return re.sub(r"[^\w.=,-]+", "_", name).lstrip(".")[:80] or "_"


def fetch_record(client: MlflowClient, run: Run, root: Path) -> tuple[RunRecord, bool]:
    """The run, its files kept in a folder below `root`; and whether it had sent them."""
    folder, mlflow_id = root / folder_name(run), run.info.run_id
    marker, stamp = folder / _MARKER, json.dumps({"run": mlflow_id, "ended": run.info.end_time})
    if has_ended(run) and marker.is_file() and marker.read_text(encoding="utf-8") == stamp:
        return read_run(folder), True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    there = {artifact.path for artifact in client.list_artifacts(mlflow_id)}
    # A run that was taken up again still shows the files of its earlier attempt.
    sent = has_ended(run) and "run.json" in there
    for name in ("config.yaml", *(RUN_FILES if sent else ())):
        if name in there:
            _download(client, mlflow_id, name, folder)
    if not sent:
        return _record(client, run, folder), False
    if "samples" in there:
        samples = [artifact.path for artifact in client.list_artifacts(mlflow_id, "samples")]
        for path in filter(_SAMPLES.fullmatch, samples):
            _download(client, mlflow_id, path, folder)
    write_atomically(marker, stamp)
    return read_run(folder), True


def fetch_manifest(client: MlflowClient, sweep: Run, members: Sequence[Run], folder: Path) -> dict[str, Any]:
    """The sweep.json that the sweep sent. Where it sent none: one made from its parameters and the names of its runs,
    which does not know of runs that never started.
    """
    manifest: object = None
    if any(artifact.path == _MANIFEST for artifact in client.list_artifacts(sweep.info.run_id)):
        folder.mkdir(parents=True, exist_ok=True)
        _download(client, sweep.info.run_id, _MANIFEST, folder)
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    if isinstance(manifest, dict) and manifest.get("runs"):
        return manifest
    parameters = sweep.data.params.items()
    axes = {key.removeprefix("axes."): text.split(",") for key, text in parameters if key.startswith("axes.")}
    return {
        "title": sweep.info.run_name,
        "axes": axes,
        "created_at": _moment(sweep.info.start_time),
        "runs": [
            {"run_id": run.data.tags[RUN_ID_TAG], "axes": {axis: _on_axis(run, axis) for axis in axes}}
            for run in members
        ],
    }


def _download(client: MlflowClient, mlflow_id: str, path: str, folder: Path) -> None:
    """Bring one file to the same path below `folder`; some stores would leave out its folders."""
    target = folder / path
    target.parent.mkdir(exist_ok=True)
    found = Path(client.download_artifacts(mlflow_id, path, str(folder)))
    if found != target:
        found.replace(target)


def _record(client: MlflowClient, run: Run, folder: Path) -> RunRecord:
    """The run from its parameters, which are the texts of Python values, its metrics and its tags."""
    notes: list[str] = []
    config = read_config(folder / "config.yaml", notes)
    config = config or flatten({key: _value(text) for key, text in run.data.params.items()})
    rows = _metrics(client, run)
    info = _info(run, config, rows[-1]["step"] if rows else 0)
    return RunRecord(info["run_id"], folder, info, config, {}, rows, [], [], tuple(notes))


def _value(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return list(value) if isinstance(value, tuple) else value


def _metrics(client: MlflowClient, run: Run) -> list[dict[str, Any]]:
    """Rows by step, as metrics.jsonl holds them; of a value sent twice the last one."""
    rows: dict[int, dict[str, Any]] = defaultdict(dict)
    for key in sorted(run.data.metrics):
        history = client.get_metric_history(run.info.run_id, key)
        for metric in sorted(history, key=lambda metric: metric.timestamp):
            rows[metric.step][key] = metric.value if math.isfinite(metric.value) else None
    return [{"step": step, **rows[step]} for step in sorted(rows)]


def _info(run: Run, config: Mapping[str, Any], last: int) -> dict[str, Any]:
    """What run.json would say."""
    tags, info = run.data.tags, run.info
    status = _STATUS.get(info.status, "RUNNING")
    version = tags.get(RESULT_VERSION_TAG, "")
    recipe = tags.get(STARTING_POLICY_TAG)
    return {
        "run_id": tags[RUN_ID_TAG],
        "name": info.run_name,
        "status": status,
        "reason": None if status == "RUNNING" else tags.get(REASON_TAG),
        "diverged": tags[DIVERGED_TAG] == "True" if DIVERGED_TAG in tags else None,
        "method": tags.get(METHOD_TAG),
        "seed": config.get("seed"),
        "starting_policy": {"recipe": recipe, "seed": config.get("warmup.seed")} if recipe else None,
        "model": {"name": config.get("model.name")},
        "task": config.get("task.kind"),
        "steps": config.get("trainer.steps"),
        "steps_done": last,
        "started_at": _moment(info.start_time),
        "ended_at": _moment(info.end_time),
        "versions": {
            key.removeprefix(VERSION_TAG): value for key, value in tags.items() if key.startswith(VERSION_TAG)
        },
        "git": {"commit": tags.get("mlflow.source.git.commit"), "dirty": tags.get(DIRTY_TAG) == "True"},
        "result_version": int(version) if version.isdigit() else None,
    }


def _on_axis(run: Run, axis: str) -> str:
    """A run's value on an axis: runs are named by their method and the other axes as they were written."""
    written = re.search(rf"(?:^| ){re.escape(axis)}=(\S+)", run.info.run_name or "")
    if written:
        return written.group(1)
    return run.data.params.get(axis) or run.data.params.get(NAME_OF_CHOICE.get(axis, ""), "?")


def _moment(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")

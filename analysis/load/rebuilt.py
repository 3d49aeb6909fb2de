"""A run folder, or a sweep's manifest, made of what MLflow knows when the lab's own files did not reach it."""

from __future__ import annotations

import ast
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cppo_lab.analysis.load.axes import NAME_OF_CHOICE
from cppo_lab.tracking.mlflow_store import (
    DIRTY_TAG,
    DIVERGED_TAG,
    METHOD_TAG,
    REASON_TAG,
    RESULT_VERSION_TAG,
    RUN_ID_TAG,
    STARTING_POLICY_TAG,
    VERSION_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_STATUS = {"FINISHED": "FINISHED", "FAILED": "FAILED", "KILLED": "INTERRUPTED"}


def has_ended(run: Run) -> bool:
    """Whether MLflow says that the run is over, however it ended."""
    return run.info.status in _STATUS


def rebuild(client: MlflowClient, run: Run, folder: Path) -> None:
    """Write run.json, metrics.jsonl and, where it is missing, config.yaml into `folder`."""
    rows = _metrics(client, run)
    config = typed(run.data.params)
    if not (folder / "config.yaml").exists():
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    last = rows[-1]["step"] if rows else 0
    (folder / "run.json").write_text(json.dumps(_info(run, config, last)), encoding="utf-8")


def typed(params: Mapping[str, str]) -> dict[str, Any]:
    """Flat parameters, which are the texts of Python values, as values; a text that is none stays."""
    return {key: _value(text) for key, text in params.items()}


def manifest_of(parent: Run, members: Sequence[Run]) -> dict[str, Any]:
    """The manifest of a sweep, by its parameters and the names of its runs. Runs that never started are not known."""
    axes = {
        key.removeprefix("axes."): text.split(",")
        for key, text in parent.data.params.items()
        if key.startswith("axes.")
    }
    return {
        "name": parent.info.run_name,
        "title": parent.info.run_name,
        "axes": axes,
        "created_at": _moment(parent.info.start_time),
        "runs": [
            {"run_id": run.data.tags[RUN_ID_TAG], "axes": {axis: _on_axis(run, axis) for axis in axes}}
            for run in members
        ],
    }


def _value(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return list(value) if isinstance(value, tuple) else value


def _metrics(client: MlflowClient, run: Run) -> list[dict[str, Any]]:
    """Rows by step, as metrics.jsonl holds them; a value sent twice is what was sent last."""
    rows: dict[int, dict[str, Any]] = defaultdict(dict)
    for key in sorted(run.data.metrics):
        history = client.get_metric_history(run.info.run_id, key)
        for metric in sorted(history, key=lambda metric: metric.timestamp):
            rows[metric.step][key] = metric.value if math.isfinite(metric.value) else None
    return [{"step": step, **rows[step]} for step in sorted(rows)]


def _info(run: Run, config: Mapping[str, Any], last: int) -> dict[str, Any]:
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

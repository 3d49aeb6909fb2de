"""What a run folder says, in MLflow's terms."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cppo_lab.files import file_sha256
from cppo_lab.tracking.mlflow_names import (
    DIRTY_TAG,
    DIVERGED_TAG,
    KIND_TAG,
    METHOD_TAG,
    REASON_TAG,
    RESULT_VERSION_TAG,
    RUN_FILES,
    RUN_ID_TAG,
    STARTING_POLICY_TAG,
    STATUS,
    THEOREM_TAG,
    VERSION_TAG,
)
from cppo_lab.tracking.run_folder import RunFolder

_PARAM_LENGTH = 500
# Marks a row with token traces in a sample file; inside a string the quotes would be escaped.
_TOKENS = '"tokens": {'


@dataclass(frozen=True)
class Value:
    """A value of a metric, and when its row was written, in milliseconds since 1970."""

    value: float
    at: int


@dataclass(frozen=True)
class RunContent:
    """What MLflow should say of a run.

    metrics: by key and step. files: by the path of the artifact, those of results only once the run has ended.
    started, ended: in milliseconds since 1970.
    """

    run_id: str
    status: str
    started: int
    ended: int | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[tuple[str, int], Value]
    files: Mapping[str, Path]

    @property
    def has_ended(self) -> bool:
        """Whether nobody is training the run."""
        return self.status != "RUNNING"

    @property
    def last_step(self) -> int:
        """The last step with a metric; -1 before the first."""
        return max((step for _, step in self.metrics), default=-1)

    @property
    def digest(self) -> str:
        """The hash of everything that MLflow should hold."""
        content = {
            "status": self.status,
            "tags": dict(sorted(self.tags.items())),
            "params": dict(sorted(self.params.items())),
            "metrics": [[key, step, value.value] for (key, step), value in sorted(self.metrics.items())],
            "files": {name: file_sha256(path) for name, path in sorted(self.files.items())},
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def run_content(folder: RunFolder, *, is_live: bool = False, after: int = -1) -> RunContent | None:
    """What the folder says now; None before the first attempt.

    A run that nobody trains is not RUNNING, unless the caller has it trained elsewhere (`is_live`). Metrics of steps up
    to `after` are left out.
    """
    # The status first: rows that are there when a run has ended are all of them.
    status = folder.status if is_live else folder.present_status
    info = folder.info
    if not info or status is None:
        return None
    started = _milliseconds(info.get("started_at")) or 0
    times = folder.row_times(started)
    metrics = {
        (key, row["step"]): Value(float(value), times.get(row["step"], started))
        for row in folder.rows("metrics.jsonl")
        if row["step"] > after
        for key, value in row.items()
        if key != "step" and value is not None
    }
    config = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
    return RunContent(
        run_id=info["run_id"],
        status=STATUS[status],
        started=started,
        ended=_milliseconds(info.get("ended_at")) or max(times.values(), default=None),
        tags=_tags(info),
        params=flat(config),
        metrics=metrics,
        files=_files(folder, status != "RUNNING"),
    )


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as flat `a.b.c` parameters, values truncated to MLflow's limit."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)[:_PARAM_LENGTH]
    return found


def _tags(info: Mapping[str, Any]) -> dict[str, str]:
    git, start = info.get("git") or {}, (info.get("starting_policy") or {}).get("recipe")
    found = {
        KIND_TAG: "run",
        "mlflow.source.name": "cppo-lab train",
        RUN_ID_TAG: info["run_id"],
        METHOD_TAG: info["method"],
        THEOREM_TAG: info.get("theorem_1"),
        RESULT_VERSION_TAG: info.get("result_version"),
        # Known only after the warm-up; needed to pair runs, including those that never end.
        STARTING_POLICY_TAG: start,
        REASON_TAG: info.get("reason"),
        DIVERGED_TAG: info.get("diverged"),
        "mlflow.source.git.commit": git.get("commit"),
        DIRTY_TAG: git.get("dirty") if git.get("commit") else None,
    }
    found |= {f"{VERSION_TAG}{name}": version for name, version in info.get("versions", {}).items()}
    return {key: str(value) for key, value in found.items() if value is not None and value != ""}


def _files(folder: RunFolder, has_ended: bool) -> dict[str, Path]:
    names = ("config.yaml", "uncommitted.diff", *(RUN_FILES if has_ended else ()))
    found = {name: folder.path / name for name in names if (folder.path / name).is_file()}
    samples = _telling_samples(folder) if has_ended else []
    return found | {f"samples/{path.name}": path for path in samples}


def _telling_samples(folder: RunFolder) -> list[Path]:
    """The sample files that a report reads: the last one and those with token traces."""
    files = [path for _, path in folder.sample_files()]
    return [path for path in files[:-1] if _TOKENS in path.read_text(encoding="utf-8")] + files[-1:]


def _milliseconds(moment: str | None) -> int | None:
    return None if not moment else int(datetime.datetime.fromisoformat(moment).timestamp() * 1000)

"""One run folder: run.json, config.yaml and the JSON Lines files, read so that no damage stops a report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cppo_lab.manifests import is_intact, manifest_problem

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Lone surrogates: JSON and YAML can escape them, and no UTF-8 file can hold them.
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class RunRecord:
    """One run: `info` is run.json, `config` the flat configuration, `notes` say what was unreadable."""

    run_id: str
    folder: Path
    info: dict[str, Any]
    config: dict[str, Any]
    axes: dict[str, str]
    metrics: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    profiles: list[dict[str, Any]]
    notes: tuple[str, ...]


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping to dotted keys; lists become JSON text, which compares and prints."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{path}."))
        elif isinstance(value, (list, dict)):
            flat[path] = json.dumps(value)
        else:
            flat[path] = value
    return flat


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a JSON Lines file, and the number of unreadable lines, such as the last one of a killed run."""
    if not path.exists():
        return [], 0
    rows: list[dict[str, Any]] = []
    broken = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                broken += 1
                continue
            if isinstance(row, dict):
                # Checking every value of every row would be slow.
                rows.append(encodable(row) if "\\ud" in line or "\\uD" in line else row)
            else:
                broken += 1
    return rows, broken


def read_run(folder: Path, run_id: str | None = None) -> RunRecord:
    """Read a run folder; `notes` say what was missing or unreadable in it.

    A missing folder gives a record of status PENDING, one without a readable run.json a record of status UNKNOWN.
    """
    if not folder.is_dir():
        return not_started(folder, run_id or folder.name)
    notes: list[str] = []
    told = read_object(folder / "run.json", notes)
    if told is None:
        told = {"status": "UNKNOWN", "reason": notes[0].removeprefix(f"{folder.name}: ").rstrip(".")}
    elif not is_intact(told):
        notes.append(f"{folder.name}: run.json is not as the run wrote it (its own hash differs).")
    if told.get("status") == "FINISHED" and (found := manifest_problem(folder)) is not None:
        notes.append(f"{folder.name}: {found[0]} is not as the run wrote it ({found[1]}).")
    config = read_config(folder / "config.yaml", notes)
    metrics, timings, profiles = (
        _read_log(folder / name, notes) for name in ("metrics.jsonl", "timings.jsonl", "profiles.jsonl")
    )
    identity = run_id or str(told.get("run_id") or folder.name)
    return RunRecord(identity, folder, told, config, {}, metrics, timings, profiles, tuple(notes))


def not_started(folder: Path, run_id: str) -> RunRecord:
    """A run without a folder."""
    info = {"status": "PENDING", "reason": "no run folder: not started yet, or deleted"}
    return RunRecord(run_id, folder, info, {}, {}, [], [], [], ())


def read_config(path: Path, notes: list[str]) -> dict[str, Any]:
    """The flat configuration of a config.yaml; empty where there is none, or where `notes` says it is unreadable."""
    text = _read_text(path, notes) if path.exists() else None
    if text is None:
        return {}
    try:
        loaded = yaml.load(text, Loader=YAML_LOADER)
    except yaml.YAMLError:
        loaded = None
    if isinstance(loaded, dict):
        return flatten(encodable(loaded))
    notes.append(f"{path.parent.name}: {path.name} is not a configuration and was ignored.")
    return {}


def _read_log(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        rows, broken = read_json_lines(path)
    except OSError as error:
        notes.append(_unreadable(path, error))
        return []
    if broken:
        lines = "1 unreadable line" if broken == 1 else f"{broken} unreadable lines"
        notes.append(f"{path.parent.name}: {lines} in {path.name} ignored.")
    return rows


def _read_text(path: Path, notes: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        notes.append(_unreadable(path, error))
        return None


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> str:
    reason = (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else "not UTF-8"
    return f"{path.parent.name}: {path.name} cannot be read ({reason})."


def steps_of(records: Iterable[RunRecord]) -> int:
    """The last training step of any record; 0 when only the starting policy was evaluated."""
    return max((int(row.get("step") or 0) for record in records for row in record.metrics), default=0)


def read_object(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """JSON object of a file; None, and a sentence in `notes`, when it is missing or unreadable."""
    if not path.exists():
        notes.append(f"{path.parent.name}: {path.name} is missing.")
        return None
    text = _read_text(path, notes)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        return encodable(value)
    notes.append(f"{path.parent.name}: {path.name} is not a JSON object.")
    return None


def encodable(value: Any) -> Any:
    """Parsed JSON or YAML with lone surrogates in its texts as \\u escapes."""
    if isinstance(value, str):
        return SURROGATES.sub(lambda found: f"\\u{ord(found.group()):04x}", value)
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    return [encodable(item) for item in value] if isinstance(value, list) else value


def number(value: object) -> float | None:
    """A JSON number as float; None for NaN, booleans and anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if value == value else None

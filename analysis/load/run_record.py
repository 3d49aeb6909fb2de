"""One run folder, as its files tell it: run.json, config.yaml and the JSON Lines files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Halves of a character, which JSON and YAML can name and no file or frame can hold.
HALVES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class RunRecord:
    """One run as its folder tells it; `info` is run.json, `config` is flat, `notes` what was unreadable."""

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
    """Nested mapping to dotted keys; lists become JSON text so that values compare and print."""
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
    """Objects of a JSON Lines file and how many lines could not be read.

    A run that was killed leaves a half-written last line; reading a live run must not fail because of it.
    """
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
                # Rows are many, and hardly any names such a half.
                rows.append(encodable(row) if "\\ud" in line or "\\uD" in line else row)
            else:
                broken += 1
    return rows, broken


def read_run(folder: Path, run_id: str | None = None) -> RunRecord:
    """One run folder. Nothing that is missing or unreadable in it stops the reading; `notes` says what was.

    A folder that does not exist gives a record with status PENDING, one without a readable run.json a record with
    status UNKNOWN.
    """
    if not folder.is_dir():
        return not_started(folder, run_id or folder.name)
    notes: list[str] = []
    told = read_object(folder / "run.json", notes)
    if told is None:
        told = {"status": "UNKNOWN", "reason": notes[0].removeprefix(f"{folder.name}: ").rstrip(".")}
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
    notes.append(f"{path.parent.name}: {path.name} holds no configuration and was left out.")
    return {}


def _read_log(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        rows, broken = read_json_lines(path)
    except OSError as error:
        notes.append(_unreadable(path, error))
        return []
    if broken:
        lines = "1 unreadable line" if broken == 1 else f"{broken} unreadable lines"
        notes.append(f"{path.parent.name}: {lines} in {path.name} left out.")
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
    """Largest training step any record holds; 0 when only the starting policy was evaluated."""
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
    """Read JSON or YAML with halves of characters in its texts as \\u escapes."""
    if isinstance(value, str):
        return HALVES.sub(lambda half: f"\\u{ord(half.group()):04x}", value)
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    return [encodable(item) for item in value] if isinstance(value, list) else value


def number(value: object) -> float | None:
    """A JSON number as float; None for NaN, booleans and anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if value == value else None

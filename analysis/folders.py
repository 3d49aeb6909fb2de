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
    if not path.is_file():
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


def read_run(folder: Path, axes: dict[str, str] | None = None, run_id: str | None = None) -> RunRecord:
    """One run folder; a folder that does not exist yet gives a record with status PENDING."""
    notes: list[str] = []
    info = read_object(folder / "run.json", notes) or {}
    if not folder.is_dir():
        info = {"status": "PENDING"}
        notes.clear()
    config: dict[str, Any] = {}
    config_path = folder / "config.yaml"
    if config_path.is_file():
        try:
            loaded = yaml.load(config_path.read_text(encoding="utf-8"), Loader=YAML_LOADER)
            config = flatten(encodable(loaded)) if isinstance(loaded, dict) else {}
        except yaml.YAMLError:
            notes.append(f"{folder.name}: config.yaml is not valid YAML and was left out.")
    metrics, broken = read_json_lines(folder / "metrics.jsonl")
    if broken:
        lines = "1 unreadable line" if broken == 1 else f"{broken} unreadable lines"
        notes.append(f"{folder.name}: {lines} in metrics.jsonl left out.")
    timings, _ = read_json_lines(folder / "timings.jsonl")
    profiles, _ = read_json_lines(folder / "profiles.jsonl")
    identity = run_id or str(info.get("run_id") or folder.name)
    return RunRecord(identity, folder, info, config, axes or {}, metrics, timings, profiles, tuple(notes))


def steps_of(records: Iterable[RunRecord]) -> int:
    """Largest training step any record holds; 0 when only the starting policy was evaluated."""
    return max((int(row.get("step") or 0) for record in records for row in record.metrics), default=0)


def read_object(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """JSON object of a file; None, and a sentence in `notes`, when it is missing or unreadable."""
    if not path.is_file():
        notes.append(f"{path.parent.name}: {path.name} is missing.")
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        notes.append(f"{path.parent.name}: {path.name} is not readable JSON.")
        return None
    return encodable(value) if isinstance(value, dict) else None


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

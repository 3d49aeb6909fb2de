"""Run folders and sweeps on disk, read into frames.

The run folder is the source of truth: nothing here asks a tracking server. A run that failed, was
interrupted or never started stays in the frames with its status; only `counted` says whether its final
accuracy enters the statistics.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.folders import RunRecord, number, read_object, read_run, steps_of
from analysis.grouping import Grouping, group_runs, infer_axes, is_seed_axis

OVERRIDE = re.compile(r"\+{0,2}[\w./@-]+=")
DIVERGED = re.compile(r"\bnan\b|\binf\b|non-?finite|not finite|infinite|diverg", re.IGNORECASE)


PROFILE_COLUMNS = (
    "divergence_mean",
    "divergence_top_decile",
    "masked_share",
    "threshold_mean",
    "induced_threshold_mean",
    "mismatch_mean",
)


class NothingToReport(ValueError):
    """The request names no sweep or run with a finished step; the message says which there are."""


@dataclass(frozen=True)
class Study:
    """Everything a report reads.

    runs: one row per run, index `run_id`; columns `folder name status reason method panel group pair counted
        seed steps steps_done updates tokens_sampled tokens_trained duration_s attempts model parameters task
        starting_recipe starting_seed starting_accuracy device started_at`, and one column per resolved
        configuration key, prefixed `config.`.
    metrics: columns `run_id step` and one per metric key; NaN where a step did not record the key.
    timings: columns `run_id step` and the wall-clock keys.
    profiles: one row per run, step, kind and bin.
    command: the overrides of a sweep given on the command line; empty for a sweep with a title of its own.
    """

    name: str
    title: str
    question: str
    baseline: str | None
    window: int | None
    created_at: str | None
    grouping: Grouping
    runs: pd.DataFrame
    metrics: pd.DataFrame
    timings: pd.DataFrame
    profiles: pd.DataFrame
    provenance: dict[str, dict[str, Any]]
    notes: tuple[str, ...] = field(default=())
    command: str = ""


def known_sweeps(output_root: Path) -> list[str]:
    """Names of the sweeps recorded under `output_root`, newest first."""
    files = sorted((output_root / "sweeps").glob("*/sweep.json"))
    return [path.parent.name for path in sorted(files, key=_created_at, reverse=True)]


def load_study(
    output_root: Path, sweep: str | None = None, run_folders: Sequence[Path] | None = None
) -> Study:
    """Read one sweep, or the run folders given, or (neither given) the newest sweep, or else every run.

    Raises NothingToReport when the sweep is unknown, a run folder is missing, or no run finished a step.
    """
    if run_folders is not None and sweep is not None:
        raise NothingToReport(f"sweep = {sweep}: give either a sweep or run folders, not both.")
    if run_folders is not None:
        return _study_of_folders(run_folders, name="runs")
    known = known_sweeps(output_root)
    if sweep is None and not known:
        found = sorted(path.parent for path in (output_root / "runs").glob("*/run.json"))
        if not found:
            raise NothingToReport(f"{output_root} holds no sweep and no run: run a sweep first.")
        return _study_of_folders(found, name="runs")
    name = known[0] if sweep is None else sweep
    if name not in known:
        raise NothingToReport(_unknown_sweep(name, known, output_root))
    return _study_of_sweep(output_root, name)


def _study_of_sweep(output_root: Path, name: str) -> Study:
    notes: list[str] = []
    path = output_root / "sweeps" / name / "sweep.json"
    sweep = read_object(path, notes)
    if sweep is None:
        raise NothingToReport(f"sweep {name}: {path} is not readable JSON.")
    listed = sweep.get("runs") or []
    records = [
        read_run(
            output_root / str(entry.get("folder", "")),
            {str(key): str(value) for key, value in (entry.get("axes") or {}).items()},
            str(entry["run_id"]) if entry.get("run_id") else None,
        )
        for entry in listed
    ]
    if steps_of(records) < 1:
        states = (
            ", ".join(sorted({str(record.info.get("status", "UNKNOWN")) for record in records}))
            or "none listed"
        )
        raise NothingToReport(
            f"sweep {name}: none of its {len(records)} runs has finished a step yet ({states})."
        )
    axes = {str(key): [str(v) for v in values] for key, values in (sweep.get("axes") or {}).items()}
    window = sweep.get("window")
    title, command = title_and_command(str(sweep.get("title") or name), axes)
    return _assemble(
        records,
        axes,
        notes,
        name=name,
        title=title,
        command=command,
        question=str(sweep.get("question") or ""),
        baseline=str(sweep["baseline"]) if sweep.get("baseline") else None,
        window=int(window) if window else None,
        created_at=str(sweep["created_at"]) if sweep.get("created_at") else None,
    )


def _study_of_folders(folders: Sequence[Path], name: str) -> Study:
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise NothingToReport(f"run folder = {missing[0]}: no such folder.")
    records = [read_run(folder) for folder in dict.fromkeys(folders)]
    if steps_of(records) < 1:
        raise NothingToReport(f"none of the {len(records)} run folders has finished a step yet.")
    axes = infer_axes([record.config for record in records])
    described = [
        RunRecord(
            record.run_id,
            record.folder,
            record.info,
            record.config,
            {axis: _text(record.config.get(axis)) for axis in axes},
            record.metrics,
            record.timings,
            record.profiles,
            record.notes,
        )
        for record in records
    ]
    ordered = {axis: list(dict.fromkeys(record.axes[axis] for record in described)) for axis in axes}
    count = len(records)
    return _assemble(
        described,
        ordered,
        [],
        name=name,
        title="1 run" if count == 1 else f"{count} runs",
        question="",
        baseline=None,
        window=None,
        created_at=None,
    )


def title_and_command(title: str, axes: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """A title to head a page, and the command it stands for: a sweep given on the command line carries its joined
    overrides as title, and is named by what it varies (`algo × trainer.lr`). Any other title stays, with no command.
    """
    words = title.split()
    starts = [word.partition("=")[0].lstrip("+") for word in words if OVERRIDE.match(word)]
    if not words or not OVERRIDE.match(words[0]) or not axes or not set(axes) <= set(starts):
        return title, ""
    varied = [axis for axis, values in axes.items() if len(values) > 1]
    named = [axis for axis in varied if not is_seed_axis(axis)] or varied or list(axes)
    return " × ".join(named), title


def _assemble(
    records: list[RunRecord],
    axes: dict[str, list[str]],
    notes: list[str],
    *,
    name: str,
    title: str,
    question: str,
    baseline: str | None,
    window: int | None,
    created_at: str | None,
    command: str = "",
) -> Study:
    all_notes = [*notes, *(note for record in records for note in record.notes)]
    grouping = group_runs(
        axes, {record.run_id: record.axes for record in records}, {r.run_id: _method(r) for r in records}
    )
    runs = pd.DataFrame([_run_row(record, grouping) for record in records]).set_index("run_id")
    for column in ("task", "model"):
        values = sorted({str(value) for value in runs[column].dropna()})
        if len(values) > 1 and not any(axis.split(".")[0] == column for axis in axes):
            all_notes.append(
                f"These runs differ in their {column} ({', '.join(values)}): their accuracies are not "
                "comparable."
            )
    return Study(
        name=name,
        title=title,
        question=question,
        baseline=baseline,
        window=window,
        created_at=created_at,
        grouping=grouping,
        runs=runs,
        metrics=_frame(records, "metrics"),
        timings=_frame(records, "timings"),
        profiles=_profile_frame(records),
        provenance={record.run_id: record.info for record in records},
        notes=tuple(all_notes),
        command=command,
    )


def _run_row(record: RunRecord, grouping: Grouping) -> dict[str, Any]:
    info = record.info
    status = str(info.get("status") or "UNKNOWN").upper()
    reason = str(info["reason"]) if info.get("reason") else None
    start = info.get("starting_policy") or {}
    model = info.get("model") or {}
    tokens = info.get("tokens") or {}
    evaluated = any(
        number(row.get("eval/heldout/accuracy")) is not None for row in record.metrics if row.get("step")
    )
    member = grouping.membership[record.run_id]
    last = max((int(row.get("step") or 0) for row in record.metrics), default=0)
    first = next((row for row in record.metrics if row.get("step") == 0), {})
    starting_accuracy = number(first.get("eval/heldout/accuracy"))
    row: dict[str, Any] = {
        "run_id": record.run_id,
        "folder": record.folder,
        "name": str(info.get("name") or record.folder.name),
        "status": status,
        "reason": reason,
        "diverged": status == "FAILED" and bool(DIVERGED.search(reason or "")),
        "method": member.method,
        "panel": member.panel,
        "group": member.label,
        "pair": f"{start.get('recipe')}|{start.get('seed')}|{member.seeds}",
        "seeds": member.seeds,
        "steps": number(info.get("steps")),
        "steps_done": number(info.get("steps_done")) if info.get("steps_done") is not None else float(last),
        "last_step": last,
        "updates": number(info.get("updates")),
        "tokens_sampled": number(tokens.get("sampled")),
        "tokens_trained": number(tokens.get("trained")),
        "duration_s": number(info.get("duration_s")),
        "attempts": number(info.get("attempts")),
        "model": model.get("name"),
        "parameters": number(model.get("parameters")),
        "task": info.get("task"),
        "starting_recipe": start.get("recipe"),
        "starting_seed": start.get("seed"),
        "starting_accuracy": starting_accuracy
        if starting_accuracy is not None
        else number(start.get("accuracy")),
        "device": info.get("device"),
        "started_at": info.get("started_at"),
    }
    row["counted"] = evaluated and (status == "FINISHED" or bool(row["diverged"]))
    row.update({f"config.{key}": value for key, value in record.config.items()})
    return row


def _method(record: RunRecord) -> str:
    return str(
        record.info.get("method") or record.config.get("algo.name") or record.axes.get("algo") or "run"
    )


def _frame(records: list[RunRecord], name: str) -> pd.DataFrame:
    rows = [
        {"run_id": record.run_id, **row}
        for record in records
        for row in getattr(record, name)
        if "step" in row
    ]
    if not rows:
        return pd.DataFrame({"run_id": pd.Series(dtype=str), "step": pd.Series(dtype=int)})
    frame = pd.DataFrame(rows)
    values = [column for column in frame.columns if column != "run_id"]
    frame[values] = frame[values].apply(pd.to_numeric, errors="coerce")
    frame = frame.dropna(subset=["step"]).astype({"step": int})
    # A resumed run may have written a step twice; what it wrote last is what it went on from.
    return frame.drop_duplicates(["run_id", "step"], keep="last").sort_values(
        ["run_id", "step"], ignore_index=True
    )


def _profile_frame(records: list[RunRecord]) -> pd.DataFrame:
    columns = ["count", *PROFILE_COLUMNS]
    rows: list[dict[str, Any]] = []
    for record in records:
        for profile in record.profiles:
            edges = profile.get("edges") or []
            for index in range(len(edges) - 1):
                row = {
                    "run_id": record.run_id,
                    "step": profile.get("step"),
                    "kind": profile.get("kind"),
                    "low": edges[index],
                    "high": edges[index + 1],
                }
                for column in columns:
                    values = profile.get(column) or []
                    row[column] = number(values[index]) if index < len(values) else None
                rows.append(row)
    frame = pd.DataFrame(rows, columns=["run_id", "step", "kind", "low", "high", *columns])
    frame[["low", "high", *columns]] = frame[["low", "high", *columns]].apply(pd.to_numeric, errors="coerce")
    return frame


def _unknown_sweep(name: str, known: list[str], output_root: Path) -> str:
    if not known:
        return f"sweep = {name}: {output_root} holds no sweep yet."
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"sweep = {name}: no such sweep in {output_root}; there are {', '.join(sorted(known))}.{hint}"


def _created_at(path: Path) -> tuple[str, float]:
    try:
        created = str(json.loads(path.read_text(encoding="utf-8")).get("created_at") or "")
        datetime.fromisoformat(created)
    except (ValueError, AttributeError):
        created = ""
    return created, path.stat().st_mtime


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

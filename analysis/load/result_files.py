"""Result files: the scores of a sweep's runs, one row per run, small enough to commit.

A row holds the run's scores as in the report, its curves for docs/reproductions.md, and its origin. The seeds of a
sweep may be split over machines: rows are added to a file, and runs are paired only where they share a seed and a
starting policy.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cppo_lab.analysis.load.result_sets import Added, Row, add_rows, one_per_run
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import CURVES, OPTIONAL_SCORES, SCORES, Curve, Run, RunTable
from cppo_lab.config.seed_axes import is_seed_axis
from cppo_lab.errors import UserError
from cppo_lab.files import write_atomically

# Scores that are counts; all others are printed with DIGITS significant digits.
_WHOLE = ("best_step",)
DIGITS = 7
_NEEDED = ("run_id", "panel", "method", "status", "starting_policy", "accuracy", "budget", "deviation")
PRETRAINED = " (pretrained)"


@dataclass(frozen=True)
class ResultFile:
    """The rows of a result file, one per run, in the order of the sweep; `axes` are the columns of the sweep's axes.

    `set_aside` are further rows of the same runs, measured on other machines or at other commits.
    """

    name: str
    axes: tuple[str, ...]
    rows: tuple[Row, ...]
    set_aside: tuple[Row, ...] = ()


def rows_of(study: Study, table: RunTable) -> ResultFile:
    """A row for every run of a study's run table."""
    axes = tuple(dict.fromkeys(name for group in study.grouping.groups for name, _ in group.values))
    rows = tuple(_row(study, run) for run in table.runs)
    return ResultFile(study.name, (*axes, *study.grouping.seed_axes), rows)


def run_table(results: ResultFile) -> RunTable:
    """The run table of a result file."""
    return RunTable(tuple(_run(row, results.axes) for row in results.rows), len(results.set_aside))


def _row(study: Study, run: Run) -> Row:
    about = study.runs.loc[run.run_id]
    info = study.provenance[run.run_id]
    found: dict[str, Any] = {
        "run_id": run.run_id,
        "panel": run.panel,
        "method": run.method,
        **run.axes,
        "status": run.status,
        **{name: value for name in SCORES if _is_told(name, value := getattr(run, name))},
        **{name: _series(getattr(run, name), ".4g" if name == "deviation" else ".0f") for name in CURVES},
        "steps": about["steps_done"],
        "tokens_sampled": about["tokens_sampled"],
        "duration_s": about["duration_s"],
        "starting_policy": _starting_policy(info.get("starting_policy") or {}),
        "device": about["device"],
        "commit": run.commit,
        "torch": (info.get("versions") or {}).get("torch"),
    }
    return {key: _text(key, value) for key, value in found.items()}


def _run(row: Row, axes: Sequence[str]) -> Run:
    found: dict[str, Any] = {
        **{name: row.get(name, "") for name in ("run_id", "panel", "method", "status", "device", "commit")},
        **{name: score(row, name) for name in (*SCORES, "duration_s")},
        **{name: read_series(row.get(name, "")) for name in CURVES},
    }
    on_axes = {axis: row.get(axis, "") for axis in axes}
    return Run(seeds=seeds_of(row), policy=policy_of(row), axes=on_axes, **found)


def _is_told(name: str, value: float) -> bool:
    return name not in OPTIONAL_SCORES or not math.isnan(value)


def _starting_policy(start: Mapping[str, Any]) -> str | None:
    """The hash of its recipe; a policy that was not trained here has no recorded accuracy and is marked."""
    recipe = start.get("recipe")
    return f"{recipe}{PRETRAINED}" if recipe and start.get("accuracy") is None else recipe


def policy_of(row: Row) -> str:
    """An identifier of the starting policy."""
    policy = row["starting_policy"]
    # Two processors train different policies from one recipe, which their accuracy tells apart. A pretrained policy is
    # the same on every machine, although rounding may change its accuracy.
    return policy if policy.endswith(PRETRAINED) else f"{policy} {row['start']}"


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, int | float | np.number):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if key in _WHOLE or float(value).is_integer() else f"{value:.{DIGITS}g}"
    return "" if value is None else str(value)


def _series(curve: Curve, form: str) -> str:
    """`0:0.35 2:0.51 …`: steps or positions with the values there."""
    return " ".join(f"{at:{form}}:{value:.4g}" for at, value in zip(*curve, strict=True))


def read_series(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The places [n] and values [n] of a series column."""
    pairs = [pair.split(":") for pair in text.split()]
    return np.array([float(at) for at, _ in pairs]), np.array([float(value) for _, value in pairs])


def score(row: Mapping[str, str], name: str) -> float:
    """A number of a row; NaN where it has none."""
    text = row.get(name, "")
    return float(text) if text else math.nan


def seeds_of(row: Mapping[str, str]) -> str:
    """The seeds of a row as one text."""
    return ", ".join(f"{key}={value}" for key, value in row.items() if is_seed_axis(key))


def merged(old: ResultFile, new: ResultFile, *, replace: bool = False) -> tuple[ResultFile, Added]:
    """The rows of both, in the order of panels and methods met, and what was added; see `add_rows`."""
    added = add_rows((*old.rows, *old.set_aside), new.rows, replace=replace)
    panels = list(dict.fromkeys(row["panel"] for row in (*new.rows, *old.rows)))
    methods = list(dict.fromkeys(row["method"] for row in (*new.rows, *old.rows)))
    axes = tuple(dict.fromkeys((*new.axes, *old.axes)))

    def rank(row: Row) -> tuple[int, int, tuple[tuple[int, str], ...]]:
        # Seeds in the order of their numbers.
        seeds = tuple((len(row.get(axis, "")), row.get(axis, "")) for axis in axes if is_seed_axis(axis))
        return panels.index(row["panel"]), methods.index(row["method"]), seeds

    return _file(new.name, axes, sorted(added.rows, key=rank)), added


def _file(name: str, axes: tuple[str, ...], rows: Sequence[Row]) -> ResultFile:
    blocks = [f"{row['panel']} {seeds_of(row)}" for row in rows]
    used, others = one_per_run(rows, blocks, [f"{policy_of(row)} {seeds_of(row)}" for row in rows])
    return ResultFile(name, axes, tuple(used), tuple(others))


def write_results(path: Path, results: ResultFile) -> None:
    """Replace the file at `path`; rows that are set aside stand behind all others."""
    rows = (*results.rows, *results.set_aside)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())


def read_results(path: Path) -> ResultFile:
    """The rows of the file at `path`; none where there is no such file. Raises UserError for one that is none."""
    if not path.exists():
        return ResultFile(path.stem, (), ())
    try:
        with path.open(encoding="utf-8", newline="") as file:
            columns, *lines = csv.reader(file)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: is no result file ({error}).") from error
    missing = [name for name in (*_NEEDED, *SCORES) if name not in columns and name not in OPTIONAL_SCORES]
    if missing:
        raise UserError(f"{path}: is no result file: it lacks the column {missing[0]}.")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(columns):
            raise UserError(f"{path}, line {number}: has {len(line)} cells, and needs {len(columns)}.")
    rows = tuple(dict(zip(columns, line, strict=True)) for line in lines)
    _numbers_only(path, rows)
    axes = columns[columns.index("method") + 1 : columns.index("status")]
    return _file(path.stem, tuple(axes), rows)


def _numbers_only(path: Path, rows: Sequence[Row]) -> None:
    for number, row in enumerate(rows, start=2):
        for name in SCORES:
            try:
                score(row, name)
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}: {name}={row[name]}: must be a number or empty."
                ) from error

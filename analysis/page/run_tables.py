"""Tables of what was run: how the methods differ, what they were given, every run."""

from __future__ import annotations

import math

import pandas as pd

from cppo_lab.analysis.formatting import NONE, count, percent, plural, seconds
from cppo_lab.analysis.grouping import is_seed_axis
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.tables import Cell, Table
from cppo_lab.analysis.summary import Summary

# Sections of the configuration that say what was computed; the rest is in each run's config.yaml.
SECTIONS = ("task", "model", "engine", "trainer", "warmup", "evaluation")
MOST_SHARED = 48


def differences_table(study: Study) -> Table | None:
    """Configuration keys whose value differs between methods, one column per method; None when none does."""
    groups = [group.label for group in study.grouping.groups]
    first = {
        label: rows.iloc[0]
        for label in groups
        if len(rows := study.runs[(study.runs["group"] == label) & _has_config(study)])
    }
    if len(first) < 2:
        return None
    keys = [
        str(column)
        for column in study.runs.columns
        if str(column).startswith("config.") and not is_seed_axis(str(column).removeprefix("config."))
    ]
    lines: list[tuple[Cell, ...]] = []
    for key in keys:
        values = [setting(first[label][key]) for label in first]
        if len(set(values)) > 1:
            lines.append((Cell(key.removeprefix("config.")), *(Cell(value) for value in values)))
    if not lines:
        return None
    return Table(
        "configuration",
        "Configuration keys that differ between methods; a dash means that the method does not set the key.",
        (("key", False), *((label, False) for label in first)),
        tuple(lines),
    )


def shared_settings(study: Study) -> list[tuple[str, str]]:
    """(key, value) of the settings of task, model, engine, trainer and warm-up that all runs share."""
    configured = study.runs[_has_config(study)]
    out = []
    for column in map(str, study.runs.columns):
        key = column.removeprefix("config.")
        if not column.startswith("config.") or key.split(".")[0] not in SECTIONS or is_seed_axis(key):
            continue
        values = {setting(value) for value in configured[column]}
        if len(values) == 1 and NONE not in values:
            out.append((key, values.pop()))
    return out[:MOST_SHARED]


def budget_table(study: Study) -> Table:
    """What each method was given: tokens, updates, wall time."""
    rows = []
    for group in study.grouping.groups:
        runs = study.runs[study.runs["group"] == group.label]
        timings = study.timings[study.timings["run_id"].isin(runs.index)]
        shares = [timings[key].sum() if key in timings else 0.0 for key in ("rollout_s", "train_s", "eval_s")]
        total = sum(shares)
        split = " / ".join(f"{100 * share / total:.0f}" for share in shares) + "%" if total > 0 else NONE
        rows.append(
            (
                Cell(group.label, method=group.method),
                Cell(str(len(runs)), len(runs)),
                *(
                    Cell.of(runs[column].sum(min_count=1), count)
                    for column in ("updates", "tokens_sampled", "tokens_trained")
                ),
                Cell.of(runs["duration_s"].sum(min_count=1), seconds),
                Cell.of(runs["duration_s"].mean(), seconds),
                Cell(split),
            )
        )
    return Table(
        "budget",
        "What was spent, summed over the runs of a method. Split: share of the measured time in rollout, "
        "training and evaluation.",
        (
            ("method", False),
            ("runs", True),
            ("optimizer updates", True),
            ("tokens sampled", True),
            ("tokens trained", True),
            ("wall time", True),
            ("per run", True),
            ("rollout / train / eval", True),
        ),
        tuple(rows),
    )


def runs_table(study: Study, summary: Summary) -> Table:
    """Every run with its status, the failed and unfinished ones included."""
    finals = {run.run_id: run for result in summary.results for run in result.runs}
    rows = []
    for run_id, run in study.runs.iterrows():
        result = finals.get(str(run_id))
        rows.append(
            (
                Cell(str(run_id)[:12]),
                Cell(str(run["group"]), method=str(run["method"])),
                Cell(str(run["seeds"]) or NONE),
                Cell(str(run["status"]).lower()),
                Cell(_steps(run), float(run["last_step"])),
                Cell.of(run["starting_accuracy"], percent),
                Cell.of(result.final if result else None, percent),
                Cell.of(result.best if result else None, percent),
                Cell.of(run["duration_s"], seconds),
                Cell("yes" if run["counted"] else "no"),
                Cell(str(run["reason"]) if isinstance(run["reason"], str) else ""),
            )
        )
    return Table(
        "runs",
        f"Every run of the study ({plural(len(rows), 'run')}). Counted: enters the statistics.",
        (
            ("run", False),
            ("method", False),
            ("seeds", False),
            ("status", False),
            ("steps", True),
            ("start", True),
            ("final", True),
            ("best", True),
            ("time", True),
            ("counted", False),
            ("reason", False),
        ),
        tuple(rows),
    )


def setting(value: object) -> str:
    """A configuration value as text; a dash where the run has none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _has_config(study: Study) -> pd.Series:
    columns = [column for column in study.runs.columns if str(column).startswith("config.")]
    return study.runs[columns].notna().any(axis=1)


def _steps(run: pd.Series) -> str:
    planned = run["steps"]
    done = int(run["last_step"])
    return f"{done}" if pd.isna(planned) else f"{done} of {int(planned)}"

"""The scores of a study's runs: from recorded metrics to the run table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cppo_lab.analysis import statistics
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import ACCURACY, GREEDY, KL, STDERR, Array, Curve, Run, RunTable


@dataclass(frozen=True)
class Scoring:
    """What `final`, `best` and the threshold mean in one panel; the same for all its runs, so that they are comparable.

    final_evaluations: final is the mean of so many last evaluations. window: best is taken within steps 0..window,
    with so many evaluations_in_window. threshold: halfway from the panel's mean start to its highest mean final;
    NaN where no method ended above the start.
    """

    final_evaluations: int
    window: int
    evaluations_in_window: int
    threshold: float


def score_runs(study: Study) -> tuple[RunTable, dict[str, Scoring]]:
    """The run table of a study, and how each panel was scored."""
    per_run = _evaluations(study)
    scoring = {panel: _scoring(study, panel, per_run) for panel in study.grouping.panels}
    metrics = dict(list(study.metrics.groupby("run_id")))
    profiles = dict(list(study.profiles.groupby("run_id")))
    runs = [
        _run(
            study,
            group,
            str(run_id),
            per_run[str(run_id)],
            scoring[group.panel],
            metrics[run_id],
            profiles.get(run_id, study.profiles.iloc[:0]),
        )
        for panel in study.grouping.panels
        for group in study.grouping.in_panel(panel)
        for run_id in study.runs.index[(study.runs["group"] == group.label) & study.runs["counted"]]
    ]
    return RunTable(tuple(runs)), scoring


def _evaluations(study: Study) -> dict[str, Curve]:
    """Per run the evaluated steps [E] and held-out accuracies [E], the starting policy (step 0) included."""
    empty = np.array([], dtype=np.float64)
    out: dict[str, Curve] = {str(run_id): (empty, empty) for run_id in study.runs.index}
    if ACCURACY in study.metrics:
        for run_id, rows in study.metrics.groupby("run_id"):
            out[str(run_id)] = _curve(rows, ACCURACY)
    return out


def _scoring(study: Study, panel: str, per_run: dict[str, Curve]) -> Scoring:
    """The scoring of a panel depends on its finished runs, so that a run that failed early does not change it for the
    others; on all its counted runs where none finished.
    """
    rows = study.runs[(study.runs["panel"] == panel) & study.runs["counted"]]
    finished = rows[rows["status"] == "FINISHED"]
    steps = [per_run[str(run_id)][0] for run_id in (finished if len(finished) else rows).index]
    shortest = min((int((taken >= 1).sum()) for taken in steps), default=0)
    last = 3 if shortest >= 4 else 1
    ends = [int(taken.max()) for taken in steps] or [int(study.metrics["step"].max())]
    # A longer window would extend the curves of runs that were not cut short.
    window = min([*ends, *([study.window] if study.window else [])])
    inside = min((int((taken <= window).sum()) for taken in steps), default=0)
    return Scoring(last, window, inside, _threshold(rows, per_run, last))


def _threshold(rows: pd.DataFrame, per_run: dict[str, Curve], last: int) -> float:
    finals = {
        str(run_id): statistics.final_value(values[steps >= 1], last)
        for run_id in rows.index
        for steps, values in [per_run[str(run_id)]]
    }
    if not finals:
        return math.nan
    start = float(rows["starting_accuracy"].astype(float).mean())
    highest = float(pd.Series(finals).groupby(rows["group"]).mean().max())
    return (start + highest) / 2 if highest > start else math.nan


def _run(
    study: Study,
    group: Group,
    run_id: str,
    curve: Curve,
    scoring: Scoring,
    metrics: pd.DataFrame,
    profiles: pd.DataFrame,
) -> Run:
    about = study.runs.loc[run_id]
    git = study.provenance[run_id].get("git") or {}
    steps, values = curve
    last, window = scoring.final_evaluations, scoring.window
    final = statistics.final_value(values[steps >= 1], last)
    start = _float(about["starting_accuracy"])
    started = bool((steps <= window).any())
    best, best_step = statistics.best_in_window(steps, values, window) if started else (math.nan, 0)
    trained = metrics[metrics["step"] >= 1]
    kl, masked, stderr = (_curve(trained, key)[1] for key in (KL, "mask/share", STDERR))
    positions = _last_profile(profiles)
    seeds = dict(part.split("=", 1) for part in str(about["seeds"]).split(", ") if "=" in part)
    return Run(
        run_id=run_id,
        panel=group.panel,
        method=group.method,
        seeds=str(about["seeds"]),
        policy=str(about["policy"]),
        status=str(about["status"]),
        axes={**dict(group.values), **seeds},
        start=start,
        final=final,
        best=best,
        best_step=best_step,
        area=statistics.area_under_curve(steps, values, window) if started else math.nan,
        reached_at=statistics.steps_to_threshold(steps, values, scoring.threshold, window),
        collapsed=statistics.collapsed(final, start),
        kl_median=float(np.median(kl)) if len(kl) else math.nan,
        kl_p90=float(np.percentile(kl, 90)) if len(kl) else math.nan,
        masked_share=_mean(masked),
        evaluation_stderr=float(stderr[-1]) if len(stderr) else math.nan,
        final_error=float(np.sqrt((stderr[-last:] ** 2).sum()) / len(stderr[-last:]))
        if len(stderr)
        else math.nan,
        budget_share=_mean(_curve(metrics, "mask/budget_share")[1]),
        deviation_early=_divergence(positions[positions["high"] <= 0.5]),
        deviation_late=_divergence(positions[positions["low"] >= 0.5]),
        greedy_start=_at_start(_curve(metrics, GREEDY)),
        greedy_final=_at_end(_curve(metrics, GREEDY)),
        accuracy=curve,
        budget=_curve(metrics, "budget/effective"),
        deviation=(
            ((positions["low"] + positions["high"]) / 2).to_numpy(dtype=np.float64),
            positions["divergence_mean"].to_numpy(dtype=np.float64),
        ),
        duration_s=_float(about["duration_s"]),
        device=str(about["device"] or ""),
        commit=str(git.get("commit") or "")[:12] + ("+" if git.get("dirty") else ""),
    )


def _curve(rows: pd.DataFrame, key: str) -> Curve:
    """The steps at which `key` was recorded, with its values."""
    if key not in rows:
        return np.array([]), np.array([])
    known = rows.loc[rows[key].notna(), ["step", key]]
    return known["step"].to_numpy(dtype=np.float64), known[key].to_numpy(dtype=np.float64)


def _at_start(curve: Curve) -> float:
    """The value of the starting policy; NaN where there is none."""
    values = curve[1][curve[0] == 0]
    return float(values[0]) if len(values) else math.nan


def _at_end(curve: Curve) -> float:
    """The last value after the starting policy's; NaN where there is none."""
    values = curve[1][curve[0] >= 1]
    return float(values[-1]) if len(values) else math.nan


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan


def _last_profile(profiles: pd.DataFrame) -> pd.DataFrame:
    """The bins by relative position at the last step that recorded them."""
    rows = profiles[profiles["kind"] == "relative"]
    return rows[rows["step"] == rows["step"].max()].sort_values("low").dropna(subset=["divergence_mean"])


def _divergence(bins: pd.DataFrame) -> float:
    """Mean divergence over the tokens of some bins."""
    tokens = float(bins["count"].sum())
    return float((bins["divergence_mean"] * bins["count"]).sum()) / tokens if tokens else math.nan

"""One result per run and per method: the numbers that everything else in a report is made of.

- final accuracy is the mean of the last three evaluations of a run (the last one where a run has fewer than four after
  the starting policy);
- best, area and the step of the threshold are taken within one window, the same for every run of a panel;
- a run that diverged counts with the last evaluations it reached; a run that failed for another reason or is
  unfinished is shown and not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cppo_lab.analysis import statistics
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.statistics import Array, Estimate

ACCURACY = "eval/heldout/accuracy"
STDERR = "eval/heldout/stderr"
KL = "policy/k3_vs_rollout"
Curve = tuple[Array, Array]


@dataclass(frozen=True)
class Yardstick:
    """What `final`, `best` and the threshold mean in one panel; the same for each of its runs, so that they compare.

    final_evaluations: final is the mean of so many last evaluations. window: the matched window is 0..window,
    with so many evaluations_in_window. threshold: halfway from the panel's mean start to its highest mean final;
    NaN where no method ended above the start.
    """

    final_evaluations: int
    window: int
    evaluations_in_window: int
    threshold: float


@dataclass(frozen=True)
class RunResult:
    """Numbers of one counted run; accuracies in 0..1, NaN where nothing was recorded.

    reached_at is the first evaluated step at the panel's threshold, NaN where the run never got there within the
    window. evaluation_stderr is the binomial standard error of its last evaluation, final_error that of `final`.
    """

    run_id: str
    pair: str
    start: float
    final: float
    best: float
    best_step: int
    area: float
    reached_at: float
    collapsed: bool
    kl_median: float
    kl_p90: float
    masked_share: float
    evaluation_stderr: float
    final_error: float


@dataclass(frozen=True)
class MethodResult:
    """One group over its counted runs; the estimates are None when no run counts.

    median_step is the step by which half of the runs had reached the threshold: infinite where fewer did, NaN where
    there is no threshold or no run.
    """

    group: Group
    runs: tuple[RunResult, ...]
    shown: int
    unfinished: int
    failed: int
    diverged: int
    start: Estimate | None
    final: Estimate | None
    gain: Estimate | None
    best: Estimate | None
    area: Estimate | None
    median_step: float
    interquartile: float
    interquartile_interval: tuple[float, float] | None

    @property
    def label(self) -> str:
        return self.group.label

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def collapses(self) -> int:
        return sum(run.collapsed for run in self.runs)

    @property
    def reached(self) -> int:
        """Runs that reached the threshold."""
        return int(np.isfinite(self.values("reached_at")).sum())

    @property
    def collapse_interval(self) -> tuple[float, float] | None:
        """Interval of the share of runs that collapse; None when no run counts."""
        return statistics.share_interval(self.collapses, self.n) if self.runs else None

    def values(self, name: str) -> Array:
        """Attribute `name` of every counted run, [n]."""
        return np.array([getattr(run, name) for run in self.runs], dtype=np.float64)


def evaluations(study: Study) -> dict[str, Curve]:
    """Per run the evaluated steps [E] and held-out accuracies [E], the starting policy (step 0) included."""
    empty = np.array([], dtype=np.float64)
    out: dict[str, Curve] = {str(run_id): (empty, empty) for run_id in study.runs.index}
    if ACCURACY not in study.metrics:
        return out
    rows = study.metrics.dropna(subset=[ACCURACY])
    for run_id, part in rows.groupby("run_id"):
        out[str(run_id)] = (
            part["step"].to_numpy(dtype=np.float64),
            part[ACCURACY].to_numpy(dtype=np.float64),
        )
    return out


def yardstick(study: Study, panel: str, per_run: dict[str, Curve]) -> Yardstick:
    """What the numbers of `panel` mean: set by its finished runs, so that a run that died early changes it for no
    other; by all its counted runs where none finished.
    """
    rows = study.runs[(study.runs["panel"] == panel) & study.runs["counted"]]
    finished = rows[rows["status"] == "FINISHED"]
    steps = [per_run[str(run_id)][0] for run_id in (finished if len(finished) else rows).index]
    shortest = min((int((taken >= 1).sum()) for taken in steps), default=0)
    last = 3 if shortest >= 4 else 1
    ends = [int(taken.max()) for taken in steps] or [int(study.metrics["step"].max())]
    # A window that no run fills would carry curves on that were not cut short.
    window = min([*ends, *([study.window] if study.window else [])])
    inside = min((int((taken <= window).sum()) for taken in steps), default=0)
    return Yardstick(last, window, inside, _threshold(rows, per_run, last))


def method_result(
    study: Study, group: Group, per_run: dict[str, Curve], measure: Yardstick, generator: np.random.Generator
) -> MethodResult:
    """The counted runs of `group`, and their estimates; `generator` drives the bootstrap."""
    rows = study.runs[study.runs["group"] == group.label]
    counted = rows[rows["counted"]]
    runs = tuple(_run_result(study, str(run_id), per_run[str(run_id)], measure) for run_id in counted.index)
    finals = np.array([run.final for run in runs])
    starts = np.array([run.start for run in runs])
    enough = not statistics.interquartile_mean_is_mean(finals)
    known = bool(runs) and math.isfinite(measure.threshold)
    return MethodResult(
        group=group,
        runs=runs,
        shown=len(rows),
        unfinished=int((~rows["status"].isin(["FINISHED", "FAILED"])).sum()),
        failed=int((rows["status"] == "FAILED").sum()),
        diverged=int(rows["diverged"].sum()),
        start=estimate(starts),
        final=estimate(finals, evaluation_sd([run.final_error for run in runs])),
        gain=estimate(finals - starts),
        best=estimate(
            np.array([run.best for run in runs]), evaluation_sd([r.evaluation_stderr for r in runs])
        ),
        area=estimate(np.array([run.area for run in runs])),
        median_step=statistics.median_step(np.array([run.reached_at for run in runs])) if known else math.nan,
        interquartile=statistics.interquartile_mean(finals) if len(finals) else math.nan,
        interquartile_interval=statistics.stratified_bootstrap_interval(finals, generator)
        if enough
        else None,
    )


def estimate(values: Array, least_sd: float = 0.0) -> Estimate | None:
    """Mean and interval of the finite ones of `values` [n]; None when there is none."""
    finite = values[np.isfinite(values)]
    return statistics.t_interval(finite, least_sd=least_sd) if len(finite) else None


def evaluation_sd(errors: list[float]) -> float:
    """The spread that evaluation errors alone must cause: their root mean square, 0 when none is known."""
    known = np.array([error for error in errors if math.isfinite(error)])
    return float(np.sqrt((known**2).mean())) if len(known) else 0.0


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


def _run_result(study: Study, run_id: str, curve: Curve, measure: Yardstick) -> RunResult:
    steps, values = curve
    last, window = measure.final_evaluations, measure.window
    final = statistics.final_value(values[steps >= 1], last)
    start = float(study.runs["starting_accuracy"].astype(float)[run_id])
    best, best_step = (
        statistics.best_in_window(steps, values, window) if (steps <= window).any() else (math.nan, 0)
    )
    metrics = study.metrics[(study.metrics["run_id"] == run_id) & (study.metrics["step"] >= 1)]
    kl = _column(metrics, KL)
    masked = _column(metrics, "mask/share")
    stderr = _column(metrics, STDERR)
    return RunResult(
        run_id=run_id,
        pair=str(study.runs.loc[run_id, "pair"]),
        start=start,
        final=final,
        best=best,
        best_step=best_step,
        area=statistics.area_under_curve(steps, values, window) if (steps <= window).any() else math.nan,
        reached_at=statistics.steps_to_threshold(steps, values, measure.threshold, window),
        collapsed=statistics.collapsed(final, start),
        kl_median=float(np.median(kl)) if len(kl) else math.nan,
        kl_p90=float(np.percentile(kl, 90)) if len(kl) else math.nan,
        masked_share=float(masked.mean()) if len(masked) else math.nan,
        evaluation_stderr=float(stderr[-1]) if len(stderr) else math.nan,
        final_error=float(np.sqrt((stderr[-last:] ** 2).sum()) / len(stderr[-last:]))
        if len(stderr)
        else math.nan,
    )


def _column(frame: pd.DataFrame, key: str) -> Array:
    return frame[key].dropna().to_numpy(dtype=np.float64) if key in frame else np.array([])

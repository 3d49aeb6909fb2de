"""What the runs of a study amount to: one result per method, its comparison to the baseline, the verdict.

Rules that the report states in words:
- final accuracy is the mean of the last three evaluations of a run (the last one where a run has fewer than
  four after the starting policy);
- a run that diverged counts with the last evaluations it reached; a run that failed for another reason or is
  unfinished is shown and not counted;
- a difference is resolved only when its interval excludes zero and Holm's adjusted p stays below 0.05.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from analysis import stats
from analysis.grouping import Group
from analysis.runs import Study
from analysis.stats import Estimate

ACCURACY = "eval/heldout/accuracy"
STDERR = "eval/heldout/stderr"
KL = "policy/k3_vs_rollout"
ALPHA = 0.05
DEFAULT_BASELINES = ("dppo_tv", "dppo", "grpo", "ppo", "pg")


@dataclass(frozen=True)
class RunResult:
    """Numbers of one counted run; accuracies in 0..1, NaN where nothing was recorded.

    evaluation_stderr is the binomial standard error of its last evaluation, final_error that of `final`.
    """

    run_id: str
    pair: str
    start: float
    final: float
    best: float
    best_step: int
    area: float
    collapsed: bool
    kl_median: float
    kl_p90: float
    masked_share: float
    evaluation_stderr: float
    final_error: float


@dataclass(frozen=True)
class MethodResult:
    """One group over its counted runs; the estimates are None when no run counts."""

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

    def values(self, name: str) -> np.ndarray:
        """Attribute `name` of every counted run, [n]."""
        return np.array([getattr(run, name) for run in self.runs], dtype=np.float64)


@dataclass(frozen=True)
class Comparison:
    """Final accuracy of `label` minus that of `baseline`, paired by seeds and starting policy."""

    label: str
    baseline: str
    pairs: int
    differences: tuple[float, ...]
    difference: Estimate | None
    p_t: float
    p_sign_flip: float
    p_holm: float
    improvement: float
    smallest_resolvable: float
    pairs_needed: int | None

    @property
    def resolved(self) -> bool:
        d = self.difference
        return bool(d and d.has_interval and (d.low > 0 or d.high < 0) and self.p_holm < ALPHA)

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return "no matched pairs"
        if not self.difference.has_interval:
            return "not resolved (one pair)"
        if not self.resolved:
            crosses = self.difference.low <= 0 <= self.difference.high
            return "not resolved" if crosses else "not resolved after Holm"
        return "higher" if self.difference.mean > 0 else "lower"


@dataclass(frozen=True)
class PanelFindings:
    """Results of one panel, with the method of highest mean final accuracy and who it is resolved against."""

    panel: str
    yardstick: Yardstick
    results: tuple[MethodResult, ...]
    comparisons: tuple[Comparison, ...]
    baseline: str | None
    leader: MethodResult | None
    not_resolved_from: tuple[str, ...]

    @property
    def winner(self) -> MethodResult | None:
        """The leader, only if its lead over every other method is resolved."""
        return self.leader if self.leader is not None and not self.not_resolved_from else None


@dataclass(frozen=True)
class Yardstick:
    """What `final` (mean of so many last evaluations) and `best` (within steps 1..window) mean in one panel; the
    same for each of its runs, so that their numbers compare.
    """

    final_evaluations: int
    window: int
    evaluations_in_window: int


@dataclass(frozen=True)
class Findings:
    """Results of every panel, in the order of the study."""

    panels: tuple[PanelFindings, ...]

    @property
    def results(self) -> tuple[MethodResult, ...]:
        return tuple(result for panel in self.panels for result in panel.results)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(comparison for panel in self.panels for comparison in panel.comparisons)


def find(study: Study, seed: int = 0) -> Findings:
    """All results and comparisons of a study; `seed` drives the bootstrap and drawn sign flips."""
    generator = np.random.default_rng(seed)
    per_run = evaluations(study)
    return Findings(tuple(_panel(study, panel, per_run, generator) for panel in study.grouping.panels))


def yardstick(study: Study, panel: str, per_run: dict[str, tuple[np.ndarray, np.ndarray]]) -> Yardstick:
    """What final and best mean in `panel`: set by its finished runs, so that a run that died early changes it for
    no other; by all its counted runs where none finished.
    """
    rows = study.runs[(study.runs["panel"] == panel) & study.runs["counted"]]
    finished = rows[rows["status"] == "FINISHED"]
    steps = [per_run[str(run_id)][0] for run_id in (finished if len(finished) else rows).index]
    shortest = min((int((taken >= 1).sum()) for taken in steps), default=0)
    recorded = study.metrics["step"].max()
    window = study.window or min((int(taken.max()) for taken in steps), default=int(recorded))
    inside = min((int(((taken >= 1) & (taken <= window)).sum()) for taken in steps), default=0)
    return Yardstick(3 if shortest >= 4 else 1, window, inside)


def evaluations(study: Study) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per run the evaluated steps [E] and held-out accuracies [E], the starting policy (step 0) included."""
    empty = np.array([], dtype=np.float64)
    out: dict[str, tuple[np.ndarray, np.ndarray]] = {
        str(run_id): (empty, empty) for run_id in study.runs.index
    }
    if ACCURACY not in study.metrics:
        return out
    rows = study.metrics.dropna(subset=[ACCURACY])
    for run_id, part in rows.groupby("run_id"):
        out[str(run_id)] = (
            part["step"].to_numpy(dtype=np.float64),
            part[ACCURACY].to_numpy(dtype=np.float64),
        )
    return out


def baseline_of(group: Group, groups: tuple[Group, ...], wanted: str | None) -> Group | None:
    """The group of the same panel that plays the baseline: by method, by label or by an axis value.

    Without a wish: the first of dppo_tv, dppo, grpo, ppo, pg that is there, else the panel's first group.
    """
    peers = [peer for peer in groups if peer.panel == group.panel]
    if wanted is not None:
        for peer in peers:
            if wanted in (peer.method, peer.label) or wanted in dict(peer.values).values():
                return peer
        return next((peer for peer in groups if peer.label == wanted), None)
    for name in DEFAULT_BASELINES:
        for peer in peers:
            if peer.method == name:
                return peer
    return peers[0] if peers else None


def _method_result(
    study: Study,
    group: Group,
    per_run: dict[str, tuple[np.ndarray, np.ndarray]],
    measure: Yardstick,
    generator: np.random.Generator,
) -> MethodResult:
    rows = study.runs[study.runs["group"] == group.label]
    counted = rows[rows["counted"]]
    runs = tuple(_run_result(study, str(run_id), per_run[str(run_id)], measure) for run_id in counted.index)
    finals = np.array([run.final for run in runs])
    starts = np.array([run.start for run in runs])
    enough = len(finals) >= 4
    return MethodResult(
        group=group,
        runs=runs,
        shown=len(rows),
        unfinished=int((~rows["status"].isin(["FINISHED", "FAILED"])).sum()),
        failed=int((rows["status"] == "FAILED").sum()),
        diverged=int(rows["diverged"].sum()),
        start=_estimate(starts),
        final=_estimate(finals, _least_sd([run.final_error for run in runs])),
        gain=_estimate(finals - starts),
        best=_estimate(np.array([run.best for run in runs]), _least_sd([r.evaluation_stderr for r in runs])),
        area=_estimate(np.array([run.area for run in runs])),
        interquartile=stats.interquartile_mean(finals) if len(finals) else math.nan,
        interquartile_interval=stats.stratified_bootstrap_interval(finals, generator) if enough else None,
    )


def _run_result(
    study: Study, run_id: str, curve: tuple[np.ndarray, np.ndarray], measure: Yardstick
) -> RunResult:
    steps, values = curve
    last, window = measure.final_evaluations, measure.window
    after = steps >= 1
    final = stats.final_value(values[after], last)
    start = float(study.runs["starting_accuracy"].astype(float)[run_id])
    inside = after & (steps <= window)
    best, best_step = stats.best_in_window(steps, values, window) if inside.any() else (math.nan, 0)
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
        area=stats.area_under_curve(steps, values),
        collapsed=stats.collapsed(final, start),
        kl_median=float(np.median(kl)) if len(kl) else math.nan,
        kl_p90=float(np.percentile(kl, 90)) if len(kl) else math.nan,
        masked_share=float(masked.mean()) if len(masked) else math.nan,
        evaluation_stderr=float(stderr[-1]) if len(stderr) else math.nan,
        final_error=float(np.sqrt((stderr[-last:] ** 2).sum()) / len(stderr[-last:]))
        if len(stderr)
        else math.nan,
    )


def _panel(
    study: Study,
    panel: str,
    per_run: dict[str, tuple[np.ndarray, np.ndarray]],
    generator: np.random.Generator,
) -> PanelFindings:
    groups = study.grouping.groups
    measure = yardstick(study, panel, per_run)
    results = tuple(
        _method_result(study, group, per_run, measure, generator) for group in study.grouping.in_panel(panel)
    )
    by_label = {result.label: result for result in results}
    base_group = baseline_of(results[0].group, groups, study.baseline) if results else None
    base = by_label.get(base_group.label) if base_group else None
    raw = [compare(result, base, generator) for result in results if base is not None and result is not base]
    comparisons = with_holm(raw)
    ranked = sorted(
        (result for result in results if result.final is not None),
        key=lambda result: result.final.mean if result.final else -math.inf,
        reverse=True,
    )
    leader = ranked[0] if len(ranked) > 1 else None
    unresolved: tuple[str, ...] = ()
    if leader is not None:
        # Comparisons with the baseline were planned, whoever leads; all others are picked after seeing who does.
        pairs = with_holm([compare(a, b, generator) for a, b in combinations(ranked, 2)])
        planned = {frozenset((c.label, c.baseline)): c for c in comparisons}
        deciding = [
            (c.baseline, planned.get(frozenset((c.label, c.baseline)), c))
            for c in pairs
            if c.label == leader.label
        ]
        unresolved = tuple(other for other, comparison in deciding if not comparison.resolved)
    return PanelFindings(
        panel, measure, results, comparisons, base.label if base else None, leader, unresolved
    )


def matched_runs(treatment: MethodResult, baseline: MethodResult) -> list[tuple[RunResult, RunResult]]:
    """Runs of both with the same seeds and starting policy."""
    theirs = {run.pair: run for run in baseline.runs}
    return [(run, theirs[run.pair]) for run in treatment.runs if run.pair in theirs]


def paired_gap(
    treatment: MethodResult, baseline: MethodResult, score: Literal["best", "final"]
) -> Estimate | None:
    """Mean of `score` of `treatment` minus that of `baseline` over matched runs; None where there is no pair."""
    error = "final_error" if score == "final" else "evaluation_stderr"
    matched = matched_runs(treatment, baseline)
    gaps = np.array([getattr(mine, score) - getattr(other, score) for mine, other in matched])
    errors = [math.hypot(getattr(mine, error), getattr(other, error)) for mine, other in matched]
    return _estimate(gaps, _least_sd(errors))


def compare(treatment: MethodResult, baseline: MethodResult, generator: np.random.Generator) -> Comparison:
    """Paired comparison of final accuracies; Holm's p is left equal to the raw one."""
    matched = matched_runs(treatment, baseline)
    improvement = math.nan
    if treatment.runs and baseline.runs:
        improvement = stats.probability_of_improvement(treatment.values("final"), baseline.values("final"))
    if not matched:
        nan = math.nan
        return Comparison(
            label=treatment.label,
            baseline=baseline.label,
            pairs=0,
            differences=(),
            difference=None,
            p_t=nan,
            p_sign_flip=nan,
            p_holm=nan,
            improvement=improvement,
            smallest_resolvable=nan,
            pairs_needed=None,
        )
    first, second = (np.array([run.final for run in side]) for side in zip(*matched, strict=True))
    errors = [math.hypot(mine.final_error, other.final_error) for mine, other in matched]
    paired = stats.paired_difference(first, second, generator, least_sd=_least_sd(errors))
    difference = paired.difference
    return Comparison(
        label=treatment.label,
        baseline=baseline.label,
        pairs=len(matched),
        differences=tuple(float(value) for value in first - second),
        difference=difference,
        p_t=paired.p_t,
        p_sign_flip=paired.p_sign_flip,
        p_holm=paired.p_t,
        improvement=improvement,
        smallest_resolvable=stats.smallest_resolvable_difference(difference.sd, difference.n),
        pairs_needed=stats.pairs_to_resolve(difference.mean, difference.sd),
    )


def with_holm(comparisons: list[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons, their p values adjusted together."""
    adjusted = stats.holm(np.array([comparison.p_t for comparison in comparisons], dtype=np.float64))
    return tuple(
        Comparison(**{**vars(comparison), "p_holm": float(p)})
        for comparison, p in zip(comparisons, adjusted, strict=True)
    )


def _estimate(values: np.ndarray, least_sd: float = 0.0) -> Estimate | None:
    finite = values[np.isfinite(values)]
    return stats.t_interval(finite, least_sd=least_sd) if len(finite) else None


def _least_sd(errors: list[float]) -> float:
    """Root mean square of the evaluation errors that are known; 0 when none is."""
    known = np.array([error for error in errors if math.isfinite(error)])
    return float(np.sqrt((known**2).mean())) if len(known) else 0.0


def _column(frame: pd.DataFrame, key: str) -> np.ndarray:
    return frame[key].dropna().to_numpy(dtype=np.float64) if key in frame else np.array([])

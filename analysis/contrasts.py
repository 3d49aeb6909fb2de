"""Differences between two methods, paired by seeds and starting policy, and what so many pairs can tell.

A difference is resolved only when its interval excludes zero and Holm's adjusted p stays below 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cppo_lab.analysis import statistics
from cppo_lab.analysis.run_table import MethodResult, RunResult, estimate, evaluation_sd
from cppo_lab.analysis.statistics import Estimate

ALPHA = 0.05
# With which probability a difference called resolvable is found.
POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """Final accuracy of `label` minus that of `baseline`, paired by seeds and starting policy.

    smallest_resolvable and pairs_needed: see `with_power`; NaN and None where there is no spread to go by.
    """

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
    return estimate(gaps, evaluation_sd(errors))


def compare(treatment: MethodResult, baseline: MethodResult, generator: np.random.Generator) -> Comparison:
    """Paired comparison of final accuracies alone: Holm's p is left equal to the raw one, and power is not stated."""
    improvement = math.nan
    if treatment.runs and baseline.runs:
        improvement = statistics.probability_of_improvement(
            treatment.values("final"), baseline.values("final")
        )
    nan = math.nan
    alone = Comparison(
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
    matched = matched_runs(treatment, baseline)
    if not matched:
        return alone
    first, second = (np.array([run.final for run in side]) for side in zip(*matched, strict=True))
    errors = [math.hypot(mine.final_error, other.final_error) for mine, other in matched]
    paired = statistics.paired_difference(first, second, generator, least_sd=evaluation_sd(errors))
    return replace(
        alone,
        pairs=len(matched),
        differences=tuple(float(value) for value in first - second),
        difference=paired.difference,
        p_t=paired.p_t,
        p_sign_flip=paired.p_sign_flip,
        p_holm=paired.p_t,
    )


def with_holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons, their p values adjusted together."""
    adjusted = statistics.holm(np.array([comparison.p_t for comparison in comparisons], dtype=np.float64))
    return tuple(
        replace(comparison, p_holm=float(p)) for comparison, p in zip(comparisons, adjusted, strict=True)
    )


def with_power(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons with what their pairs can resolve, and how many pairs the difference seen would take.

    At the level of Holm's first step, 0.05 over the number of tests: found whatever the other comparisons give.
    """
    tests = sum(not math.isnan(comparison.p_t) for comparison in comparisons)
    level = 1 - ALPHA / max(1, tests)
    out = []
    for comparison in comparisons:
        seen = comparison.difference
        if seen is not None:
            comparison = replace(
                comparison,
                smallest_resolvable=statistics.smallest_resolvable_difference(seen.sd, seen.n, POWER, level),
                pairs_needed=statistics.pairs_to_resolve(seen.mean, seen.sd, POWER, level),
            )
        out.append(comparison)
    return tuple(out)

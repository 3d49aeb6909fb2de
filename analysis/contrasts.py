"""Contrasts: differences between two methods over runs paired by seeds and starting policy.

Pairing, intervals, tests, Holm's adjustment, power, equivalence and the seeds a question needs exist here once; the
report, the page of reproductions, the terminal and the A/A check all use them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cppo_lab.analysis import statistics
from cppo_lab.analysis.claims import ACCURACIES
from cppo_lab.analysis.run_table import Array, Run
from cppo_lab.analysis.statistics import Estimate

ALPHA = 0.05
POWER = 0.8
"""The probability with which a difference called detectable is detected."""
# The evaluation error of the scores that are accuracies of one or a few evaluations.
_ERRORS = {"final": "final_error", "best": "evaluation_stderr"}


@dataclass(frozen=True)
class Pair:
    """One paired difference, its evaluation error (NaN where none is known), and the ids of the runs behind it.

    choice: the tuned points behind it, with the error of each; a point on both sides cancels.
    """

    value: float
    error: float
    runs: frozenset[str]
    choice: frozenset[tuple[str, float]] = frozenset()

    def minus(self, other: Pair) -> Pair:
        """The difference of two values, with the error of it."""
        return Pair(
            self.value - other.value,
            math.hypot(self.error, other.error),
            self.runs | other.runs,
            self.choice ^ other.choice,
        )


@dataclass(frozen=True)
class Contrast:
    """Mean difference of `treatment` and `baseline`, or the mean of `treatment` alone, over pairs.

    estimate: None without pairs. improvement: the probability that a run of the treatment beats one of the baseline.
    p_adjusted: the two-sided p adjusted for the `family` of contrasts tested together (Holm), NaN below two pairs.
    """

    treatment: str
    baseline: str | None
    pairs: tuple[Pair, ...]
    estimate: Estimate | None
    improvement: float = math.nan
    p_adjusted: float = math.nan
    family: int = 1

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @property
    def values(self) -> Array:
        """The paired differences [n]."""
        return np.array([pair.value for pair in self.pairs], dtype=np.float64)

    @cached_property
    def runs(self) -> frozenset[str]:
        """The ids of all paired runs."""
        return frozenset[str]().union(*(pair.runs for pair in self.pairs))

    @property
    def p(self) -> float:
        """Two-sided p of Student's t test against zero, not adjusted."""
        return p_beyond(self.estimate, abs(self.estimate.mean)) if self.estimate else math.nan

    @cached_property
    def p_sign_flip(self) -> float:
        """Two-sided p of the sign-flip test, not adjusted; its draws are the same in every report."""
        return statistics.sign_flip_p(self.values, np.random.default_rng(0)) if self.pairs else math.nan

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes zero and the adjusted p is below ALPHA."""
        seen = self.estimate
        return bool(
            seen and seen.shows_interval and (seen.low > 0 or seen.high < 0) and self.p_adjusted < ALPHA
        )

    @property
    def verdict(self) -> str:
        """`higher`, `lower` or `inconclusive`, with the reason where the interval alone would not be."""
        seen = self.estimate
        if seen is None:
            return "no matched pairs"
        if not seen.shows_interval:
            return f"inconclusive ({'one pair' if self.n == 1 else 'two pairs'})"
        if self.resolved:
            return "higher" if seen.mean > 0 else "lower"
        return "inconclusive" if seen.low <= 0 <= seen.high else "inconclusive after Holm"

    @property
    def smallest_detectable(self) -> float:
        """The true difference that so many pairs detect with probability POWER at the spread seen; NaN without one.

        At Holm's first step, 0.05 over the family: detected whatever the other contrasts show.
        """
        seen = self.estimate
        if seen is None:
            return math.nan
        return statistics.detectable_difference(seen.sd, seen.n, POWER, 1 - ALPHA / self.family)

    @property
    def seeds_needed(self) -> float | None:
        """Pairs that would detect a true difference as large as the one seen, see `seeds_to_detect`."""
        return seeds_to_detect(self.estimate, abs(self.estimate.mean), self.family) if self.estimate else None

    @property
    def needs_tuning(self) -> bool:
        """Whether a true difference as large as the one seen takes more tuning seeds, see `is_beyond_test_seeds`."""
        seen = self.estimate
        return seen is not None and is_beyond_test_seeds(seen, abs(seen.mean), self.family)


def pair_up(
    treatment: Iterable[Run], baseline: Iterable[Run] | None, score: str = "final", less: float = 0.0
) -> dict[tuple[str, str], Pair]:
    """`score` of `treatment` minus that of `baseline` (if any) and minus `less`, by (seeds, policy)."""
    found = _by_pair(treatment, score)
    if baseline is not None:
        other = _by_pair(baseline, score)
        found = {key: pair.minus(other[key]) for key, pair in found.items() if key in other}
    return {
        key: replace(pair, value=pair.value - less)
        for key, pair in found.items()
        if math.isfinite(pair.value)
    }


def contrast(treatment: str, baseline: str | None, pairs: Iterable[Pair]) -> Contrast:
    """The contrast over these pairs, adjusted for no other."""
    kept = tuple(pairs)
    chosen = frozenset[tuple[str, float]]().union(*(pair.choice for pair in kept))
    shared = math.hypot(*(error for _, error in chosen))
    seen = estimate([pair.value for pair in kept], [pair.error for pair in kept], shared)
    made = Contrast(treatment, baseline, kept, seen)
    return replace(made, p_adjusted=made.p)


def compare(treatment: Sequence[Run], baseline: Sequence[Run], names: tuple[str, str]) -> Contrast:
    """The contrast of final accuracies of two methods with these `names`."""
    made = contrast(*names, pair_up(treatment, baseline).values())
    if not treatment or not baseline:
        return made
    finals = (np.array([run.final for run in runs]) for runs in (treatment, baseline))
    return replace(made, improvement=statistics.probability_of_improvement(*finals))


def difference(treatment: Sequence[Run], baseline: Sequence[Run], score: str = "final") -> Estimate | None:
    """Mean paired difference of a score of two methods; None without pairs."""
    return contrast("", "", pair_up(treatment, baseline, score).values()).estimate


def adjusted(contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
    """The same contrasts, adjusted as one family (Holm)."""
    p = holm([each.p for each in contrasts])
    return tuple(
        replace(each, p_adjusted=float("nan") if math.isnan(each.p) else value, family=max(1, len(contrasts)))
        for each, value in zip(contrasts, p, strict=True)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment. Planned tests without runs yet (NaN) count with p = 1, so that a family never grows."""
    return [float(p) for p in statistics.holm(np.nan_to_num(np.array(p_values, dtype=np.float64), nan=1.0))]


def p_beyond(seen: Estimate | None, distance: float) -> float:
    """Two-sided p of the t test of a mean against a bound `distance` away: NaN without an interval, 1 where the mean is
    on the wrong side (negative distance).
    """
    if seen is None or not seen.has_interval:
        return math.nan
    return statistics.t_p(distance, seen.sd, seen.n) if distance >= 0 else 1.0


def seeds_to_detect(seen: Estimate | None, distance: float, family: int) -> float | None:
    """Pairs that detect, with probability POWER at Holm's first step, that the mean is past a bound `distance` away.

    The observed mean and spread are taken for the true ones; the error of tuned points stays whatever their number.
    None without a spread or on the wrong side of the bound; infinity above 1,000.
    """
    if seen is None or not seen.sd > 0 or not distance > 0:
        return None
    level = 1 - ALPHA / family
    found = statistics.pairs_to_detect(distance, seen.own_sd, POWER, level, shared_error=seen.shared)
    return found or math.inf


def is_beyond_test_seeds(seen: Estimate | None, distance: float, family: int) -> bool:
    """Whether no number of test seeds detects that the mean is past a bound `distance` away, because of the error of
    tuned points: only tuning on more seeds makes that smaller.
    """
    if seen is None or not seen.shared > 0 or not distance > 0:
        return False
    return statistics.most_power(distance, seen.shared, 1 - ALPHA / family) < POWER


def seeds_to_show_equal(seen: Estimate | None, margin: float, family: int) -> float | None:
    """Pairs that show, likewise, that the mean is within `margin` of zero."""
    if seen is None or not seen.sd > 0 or not abs(seen.mean) < margin:
        return None
    level = 1 - ALPHA / family
    found = statistics.pairs_to_show_equal(
        seen.mean, seen.own_sd, margin, POWER, level, shared_error=seen.shared
    )
    return found or math.inf


def estimate(
    values: Sequence[float] | Array, errors: Sequence[float] = (), shared: float = 0.0
) -> Estimate | None:
    """Mean and interval of the finite ones of `values` [n]; None when there is none.

    errors: evaluation errors of the values; the spread is never taken to be smaller than they alone must cause.
    shared: an error that all values have in common, such as that of the choice of a tuned point.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    known = np.array([error for error in errors if math.isfinite(error)])
    least = float(np.sqrt((known**2).mean())) if len(known) else 0.0
    return statistics.t_interval(finite, least_sd=least, shared_error=shared) if len(finite) else None


def _by_pair(runs: Iterable[Run], score: str) -> dict[tuple[str, str], Pair]:
    error = _ERRORS.get(score)
    return {
        run.pair: Pair(
            run.score(score),
            getattr(run, error) if error else math.nan,
            frozenset([run.run_id]),
            run.choice if score in ACCURACIES else frozenset(),
        )
        for run in runs
    }

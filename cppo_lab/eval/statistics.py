"""Statistics of an evaluation: uncertainty of the accuracy over k samples, pass@k, maj@k, and paired comparisons.

`correct` is a bool array [problems, k] everywhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959964
_RESAMPLES = 9999
_BOOTSTRAP_SEED = 0

Interval = tuple[float, float]


def mean_stderr(values: NDArray[np.float64]) -> float:
    """The standard error of a mean, as in lm-evaluation-harness: sample standard deviation / sqrt(n), NaN for n = 1.

    For the means of problems it is the standard error clustered by problem.
    """
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def wilson(share: float, n: float, z: float = Z_95) -> Interval:
    """The Wilson score interval of a share in `n` independent trials (Wilson 1927)."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def effective_size(correct: NDArray[np.bool_]) -> float:
    """The number of independent trials with the same standard error: p (1 - p) / se^2, clustered by problem.

    Samples of one problem are correlated, so it is at most the number of samples; with one sample per problem it is the
    number of problems.
    """
    problems, samples = correct.shape
    share = float(correct.mean())
    means = correct.mean(axis=1)
    if samples == 1 or problems < 2 or share in (0.0, 1.0):
        return float(problems)
    variance = float(means.var(ddof=1)) / problems
    if variance == 0:
        return float(problems * samples)
    return min(max(share * (1 - share) / variance, 1.0), float(problems * samples))


def bootstrap(values: NDArray[np.float64]) -> Interval:
    """The 95% percentile bootstrap interval of the mean over problems (`values` [problems]), seeded."""
    from scipy.stats import bootstrap as scipy_bootstrap

    if len(values) < 2 or float(np.ptp(values)) == 0:
        return float(values.mean()), float(values.mean())
    found = scipy_bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        method="percentile",
        batch=256,
        rng=np.random.default_rng(_BOOTSTRAP_SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def pass_at(correct: NDArray[np.bool_], k: int) -> float:
    """The unbiased estimate of pass@k: the mean of 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, Eq. 1)."""
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: must be between 1 and the {n} samples of each problem")
    return float(np.mean([1 - math.comb(n - int(c), k) / math.comb(n, k) for c in correct.sum(axis=1)]))


def maj_at(correct: NDArray[np.bool_], answers: Sequence[Sequence[str | None]]) -> float:
    """The share of problems whose most frequent answer is correct (Wang et al. 2023).

    A tie counts by the share of correct answers among the tied. Correct answers are one answer however they are
    written; responses without an answer have no vote.
    """
    shares = []
    for right, given in zip(correct, answers, strict=True):
        votes = Counter(
            ("right", "") if is_right else ("wrong", answer)
            for is_right, answer in zip(right, given, strict=True)
            if answer is not None
        )
        most = max(votes.values(), default=0)
        first = [kind for (kind, _), count in votes.items() if count == most]
        shares.append(first.count("right") / len(first) if first else 0.0)
    return float(np.mean(shares))


def powers_of_two(k: int) -> list[int]:
    """1, 2, 4, … up to k, and k itself."""
    return sorted({2**i for i in range(k.bit_length()) if 2**i <= k} | {k})


@dataclass(frozen=True)
class Comparison:
    """B minus A on the same problems: the mean difference of their accuracies with its 95% bootstrap interval.

    `p_value` is two-sided: McNemar's exact test for one sample per problem, else a sign-flip permutation test.
    """

    difference: float
    interval: Interval
    p_value: float
    test: str
    better: int
    worse: int
    same: int


def compare(first: NDArray[np.float64], second: NDArray[np.float64]) -> Comparison:
    """Compare two models' accuracies on the same problems ([problems] each, means over samples)."""
    from scipy.stats import binomtest, permutation_test

    differences = second - first
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    if better + worse == 0:
        p_value, test = 1.0, "no problem differs"
    elif np.isin(differences, (-1.0, 0.0, 1.0)).all():
        p_value, test = float(binomtest(better, better + worse).pvalue), "McNemar's exact test"
    else:
        found = permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            n_resamples=_RESAMPLES,
            vectorized=True,
            rng=np.random.default_rng(_BOOTSTRAP_SEED),
        )
        p_value, test = float(found.pvalue), "sign-flip permutation test"
    return Comparison(
        difference=float(differences.mean()),
        interval=bootstrap(differences),
        p_value=p_value,
        test=test,
        better=better,
        worse=worse,
        same=len(differences) - better - worse,
    )

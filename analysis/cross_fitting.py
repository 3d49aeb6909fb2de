"""What a method reaches when its setting is chosen by other seeds than those it is judged on.

The best of several settings on the same runs that it is reported on is too good: it won partly by luck (the winner's
curse). Here the seeds are split in halves many times, one half chooses the setting and the other half is judged at it.
Every split counts in both directions, and the mean is over all of them.

The error is that of the whole procedure, the choice included: a bootstrap draws seeds anew, chooses and judges again
with all copies of a seed in the same half, and its spread is used with Student's t. Leaving out one seed at a time is
no substitute: where two settings are close, the choice hangs on the seed left out, and a t test over seeds then finds a
difference between two copies of the same method in up to a third of all cases (`tests/analysis/test_cross_fitting.py`
simulates the level of this one).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cppo_lab.analysis.statistics import Array

SPLITS = 20
"""Random halves; each is used in both directions."""
DRAWS = 400
"""Of the bootstrap over seeds."""


@dataclass(frozen=True)
class Candidate:
    """A method on its settings: `score` [seeds, settings] decides between them, and `outcome` [seeds, settings] is what
    the chosen one is judged by, NaN where it is not known. Of equal settings the first is chosen.
    """

    score: Array
    outcome: Array

    @classmethod
    def by_its_score(cls, score: Array) -> Candidate:
        """Chosen and judged by the same score, on different seeds."""
        return cls(score, score)


@dataclass(frozen=True)
class CrossFit:
    """The mean over seeds and splits, its standard error, and the value of each seed [seeds] (NaN where it has none).

    known: the share of judged seeds and splits that had a value.
    """

    mean: float
    error: float
    per_seed: Array
    known: float


def cross_fitted(candidates: Sequence[tuple[float, Candidate]]) -> CrossFit:
    """The sum of weight x outcome over (weight, candidate), each at its best by the other half of the seeds.

    All candidates have the same seeds in the same order. With one seed there is nothing to choose by: NaN throughout.
    """
    seeds = len(candidates[0][1].score)
    if seeds < 2:
        return CrossFit(math.nan, math.nan, np.full(seeds, math.nan), 0.0)
    # A generator of its own: the splits and draws do not depend on what else is in the report.
    generator = np.random.default_rng(0)
    chooses = _halves(seeds, generator)
    once = np.ones((1, seeds))
    values, known = _judged(candidates, chooses, once)
    per_seed = _ratio(values[0].sum(axis=0), known[0].sum(axis=0))
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS).astype(np.float64)
    means = [_mean(*_judged(candidates, chooses, rows)) for rows in np.array_split(drawn, 8)]
    spread = float(np.nanstd(np.concatenate(means))) if known.any() else math.nan
    return CrossFit(
        mean=float(_mean(values, known)[0]),
        # The bootstrap's spread is that of n - 1 seeds.
        error=spread * math.sqrt(seeds / (seeds - 1)),
        per_seed=per_seed,
        known=float(known.sum() / (~chooses).sum()),
    )


def _halves(seeds: int, generator: np.random.Generator) -> np.ndarray:
    """Which seeds choose, [2 x SPLITS, seeds] bool; the others are judged."""
    chooses = np.zeros((SPLITS, seeds), dtype=bool)
    for row in chooses:
        row[generator.permutation(seeds)[: seeds // 2]] = True
    return np.concatenate([chooses, ~chooses])


def _judged(
    candidates: Sequence[tuple[float, Candidate]], chooses: np.ndarray, counts: Array
) -> tuple[Array, Array]:
    """For seeds that count so often [draws, seeds]: the sums of weighted outcomes and of counts, where the outcome of
    every candidate is known, [draws, splits, seeds].
    """
    choosing = counts[:, None, :] * chooses
    judged = counts[:, None, :] * ~chooses
    total = np.zeros(judged.shape)
    for weight, candidate in candidates:
        # Sums decide as means do; without a choosing seed, all are zero and the first setting is taken.
        best = np.argmax(choosing @ candidate.score, axis=2)
        total += weight * candidate.outcome.T[best]
    known = np.isfinite(total)
    return np.where(known, total, 0.0) * judged, known * judged


def _mean(values: Array, known: Array) -> Array:
    return _ratio(values.sum(axis=(1, 2)), known.sum(axis=(1, 2)))


def _ratio(sums: Array, counts: Array) -> Array:
    return np.divide(sums, counts, out=np.full(sums.shape, math.nan), where=counts > 0)

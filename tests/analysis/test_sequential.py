"""Sweeps that add seeds until contrasts are settled: wrong in 5% of studies at most, over all looks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cppo_lab.analysis.contrasts import Contrast, Pair, contrast
from cppo_lab.analysis.sequential import Looks, at_looks, decision, planned_looks, read_looks
from cppo_lab.analysis.statistics import Array

PAIRS = (4, 8, 12, 16, 20, 24)
STUDIES = 2000
MARGIN = 0.03


def intervals(looks: Looks, differences: Array) -> tuple[Array, Array]:
    """Lower and upper bounds [looks, studies] of the means of `differences` [pairs, studies]."""
    bounds = []
    for n, level in zip(looks.pairs, looks.levels, strict=True):
        seen = differences[:n]
        half = scipy_stats.t.ppf(0.5 + level / 2, n - 1) * seen.std(0, ddof=1) / math.sqrt(n)
        bounds.append((seen.mean(0) - half, seen.mean(0) + half))
    low, high = zip(*bounds, strict=True)
    return np.array(low), np.array(high)


def at_most(share: float) -> int:
    """The most of STUDIES that chance allows where each has this probability."""
    return int(scipy_stats.binom.ppf(0.999, STUDIES, share))


@pytest.mark.parametrize("family", [1, 3, 7])
@pytest.mark.parametrize("pairs", [PAIRS, (4, 6), tuple(range(2, 41))])
def test_intervals_cover_at_all_looks_together(pairs: tuple[int, ...], family: int) -> None:
    looks = planned_looks(pairs, family, MARGIN)
    missed = np.zeros(STUDIES, dtype=bool)
    for each in range(family):
        # The contrasts share a baseline, as those of a panel do.
        shared = np.random.default_rng(1).normal(size=(pairs[-1], STUDIES))
        own = np.random.default_rng(2 + each).normal(size=(pairs[-1], STUDIES))
        low, high = intervals(looks, 0.3 + 0.1 * (own - shared))
        missed |= ((low > 0.3) | (high < 0.3)).any(0)
    assert missed.sum() <= at_most(0.05)
    if family == 1:
        assert missed.sum() > at_most(0.03), "an error that is spent costs no seeds"


@pytest.mark.parametrize("truth", [-MARGIN, MARGIN])
def test_a_difference_as_large_as_the_margin_is_rarely_called_none(truth: float) -> None:
    looks = planned_looks(PAIRS, 1, MARGIN)
    drawn = truth + 0.02 * np.random.default_rng(3).normal(size=(PAIRS[-1], STUDIES))
    low, high = intervals(looks, drawn)
    assert ((low > -MARGIN) & (high < MARGIN)).any(0).sum() <= at_most(0.025)


def made(values: Array, margin: float = MARGIN, family: int = 1, count: int = 1) -> list[Contrast]:
    pairs = [Pair(float(value), math.nan, frozenset([str(i)])) for i, value in enumerate(values)]
    looks = planned_looks(PAIRS, family, margin)
    return list(at_looks([contrast("a", "b", pairs)] * count, looks))


@given(
    seed=st.integers(0, 1 << 16),
    n=st.integers(2, 24),
    mean=st.sampled_from([-0.2, -0.02, 0.0, 0.02, 0.2]),
    spread=st.sampled_from([0.002, 0.02, 0.2]),
    family=st.sampled_from([1, 3]),
)
def test_a_decision_is_what_the_interval_shows(
    seed: int, n: int, mean: float, spread: float, family: int
) -> None:
    (seen,) = made(np.random.default_rng(seed).normal(mean, spread, n), family=family)
    estimate = seen.estimate
    assert estimate is not None
    expected = (
        "above"
        if estimate.low > 0
        else "below"
        if estimate.high < 0
        else "equivalent"
        if max(-estimate.low, estimate.high) < MARGIN
        else "open"
    )
    if n == 2:
        assert not seen.resolved
        assert seen.verdict == "inconclusive (two pairs)"
        expected = "open"
    else:
        assert seen.resolved == (expected in ("above", "below"))
        assert seen.verdict == {"above": "higher", "below": "lower"}.get(expected, "inconclusive")
    assert decision(seen, MARGIN) == expected


def test_looking_more_often_and_at_more_contrasts_costs_width() -> None:
    values = np.random.default_rng(0).normal(0, 0.05, 12)
    plain = contrast("a", "b", [Pair(float(v), math.nan, frozenset([str(v)])) for v in values]).estimate
    widths = [
        made(values, family=family, count=count)[0].estimate for family, count in ((1, 1), (3, 3), (3, 6))
    ]
    highs = [plain.high if plain else 0, *(each.high for each in widths if each)]
    assert highs == sorted(set(highs))


def test_one_pair_settles_nothing() -> None:
    (seen,) = made(np.array([0.5]))
    assert decision(seen, MARGIN) == "open"
    assert decision(contrast("a", "b", []), MARGIN) == "open"


@pytest.mark.parametrize(("n", "look"), [(2, 0), (4, 0), (5, 0), (8, 1), (23, 4), (24, 5), (30, 5)])
def test_pairs_between_two_looks_have_the_level_of_the_earlier_one(n: int, look: int) -> None:
    looks = planned_looks(PAIRS, 3, MARGIN)
    assert looks.level(n) == looks.levels[look]


def test_looks_are_kept_as_json() -> None:
    looks = planned_looks(PAIRS, 3, MARGIN)
    assert read_looks(json.loads(json.dumps(looks.record()))) == looks
    assert read_looks({}) is None

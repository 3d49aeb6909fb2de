"""How many pairs of runs a question needs: for a difference, and for two methods to be shown equal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from cppo_lab.analysis import statistics


@pytest.mark.parametrize("pairs", [2, 3, 5, 20])
def test_the_detectable_difference_is_found_with_the_stated_power(pairs: int) -> None:
    generator = np.random.default_rng(pairs)
    sd = 0.04
    difference = statistics.detectable_difference(sd, pairs)
    draws = generator.normal(difference, sd, size=(4000, pairs))
    found = scipy_stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_pairs_needed_is_the_least_number_with_the_stated_power() -> None:
    pairs = statistics.pairs_to_detect(0.02, 0.04)
    assert pairs is not None
    assert statistics.detectable_difference(0.04, pairs) <= 0.02
    assert statistics.detectable_difference(0.04, pairs - 1) > 0.02


@pytest.mark.parametrize(("difference", "sd"), [(0.0, 0.04), (0.0001, 0.04), (0.1, 0.0), (0.1, math.nan)])
def test_pairs_needed_is_unknown_without_difference_or_spread_or_beyond_reach(
    difference: float, sd: float
) -> None:
    assert statistics.pairs_to_detect(difference, sd) is None


def share_shown_equal(mean: float, sd: float, margin: float, pairs: int, level: float) -> float:
    """How often drawn samples are told to lie within the margin: p below 1 - level at the margin that is nearer."""
    draws = np.random.default_rng(pairs).normal(mean, sd, size=(8_000, pairs))
    means, spreads = draws.mean(axis=1), draws.std(axis=1, ddof=1)
    distances = margin - np.abs(means)
    shown = [
        distance > 0 and statistics.t_p(distance, spread, pairs) < 1 - level
        for distance, spread in zip(distances.tolist(), spreads.tolist(), strict=True)
    ]
    return float(np.mean(shown))


@pytest.mark.parametrize("level", [0.95, 0.99])
@pytest.mark.parametrize(
    ("mean", "sd", "margin"),
    [(0.0, 0.06, 0.03), (0.01, 0.06, 0.03), (-0.01, 0.06, 0.03), (0.004, 0.01, 0.03)],
)
def test_pairs_to_show_equal_do_so_with_the_stated_power(
    mean: float, sd: float, margin: float, level: float
) -> None:
    pairs = statistics.pairs_to_show_equal(mean, sd, margin, level=level)
    assert pairs is not None
    assert share_shown_equal(mean, sd, margin, pairs, level) > 0.785
    assert share_shown_equal(mean, sd, margin, pairs - 1, level) < 0.815


def test_pairs_that_are_enough_for_one_margin_are_too_few_for_both() -> None:
    pairs, one_sided = (
        statistics.pairs_to_show_equal(0.0, 0.06, 0.03),
        statistics.pairs_to_detect(0.03, 0.06),
    )
    assert pairs is not None
    assert one_sided is not None
    assert one_sided < pairs
    assert share_shown_equal(0.0, 0.06, 0.03, one_sided, 0.95) < 0.7
    assert share_shown_equal(0.0, 0.06, 0.03, pairs, 0.95) == pytest.approx(0.8, abs=0.03)


def test_a_margin_too_far_to_be_mistaken_for_takes_no_pairs_of_its_own() -> None:
    # Near one margin the other is six spreads away: the test there is the one of a difference.
    near, alone = statistics.pairs_to_show_equal(0.02, 0.01, 0.03), statistics.pairs_to_detect(0.01, 0.01)
    assert near == alone


def test_showing_equality_takes_more_pairs_for_more_spread_power_level_and_less_room() -> None:
    def needed(
        mean: float = 0.0, sd: float = 0.06, margin: float = 0.03, power: float = 0.8, level: float = 0.95
    ) -> int:
        return statistics.pairs_to_show_equal(mean, sd, margin, power, level) or 10_000

    for growing in (
        [needed(mean=0.002 * k) for k in range(10)],
        [needed(sd=0.01 * k) for k in range(1, 10)],
        [needed(margin=0.06 - 0.005 * k) for k in range(10)],
        [needed(power=0.5 + 0.05 * k) for k in range(10)],
        [needed(level=1 - 0.05 / k) for k in range(1, 10)],
    ):
        assert growing == sorted(growing)
        assert growing[0] < growing[-1]
    assert needed(mean=0.01) == needed(mean=-0.01)


@pytest.mark.parametrize(
    ("mean", "sd", "margin"),
    [
        (0.03, 0.06, 0.03),
        (-0.05, 0.06, 0.03),
        (0.0, 0.06, 0.0),
        (0.0, 0.06, 0.001),
        (0.0, 0.0, 0.03),
        (0.0, math.nan, 0.03),
        (math.nan, 0.06, 0.03),
    ],
)
def test_no_pairs_show_equality_outside_the_margin_without_spread_or_beyond_reach(
    mean: float, sd: float, margin: float
) -> None:
    assert statistics.pairs_to_show_equal(mean, sd, margin) is None

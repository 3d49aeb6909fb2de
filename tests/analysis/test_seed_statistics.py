"""The statistics against scipy, closed forms, brute force and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as scipy_stats

from cppo_lab.analysis import statistics
from cppo_lab.analysis.contrasts import Pair, compare, contrast
from cppo_lab.analysis.run_table import Run

# Thousandths: whether two sums are equal must not hang on rounding.
finite = st.integers(-1000, 1000).map(lambda thousandths: thousandths / 1000)
samples = st.lists(finite, min_size=2, max_size=9)


def p_of(differences: np.ndarray, error: float = 0.0) -> float:
    """The paired test's p for given differences and their evaluation error."""
    return contrast("a", "b", [Pair(float(value), error, frozenset()) for value in differences]).p


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def test_t_interval_equals_scipy_on_a_fixed_sample() -> None:
    values = np.array([0.61, 0.58, 0.66, 0.55, 0.60])
    estimate = statistics.t_interval(values)
    low, high = scipy_stats.t.interval(0.95, 4, loc=values.mean(), scale=scipy_stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-12)
    assert (estimate.mean, estimate.n) == (pytest.approx(0.6), 5)


def test_t_interval_of_two_values_is_the_closed_form() -> None:
    estimate = statistics.t_interval(np.array([0.5, 0.6]))
    # The 97.5% quantile of t with one degree of freedom (Cauchy) is tan(pi * 0.475); the standard error is 0.05.
    half = math.tan(math.pi * 0.475) * 0.05
    assert estimate.high - estimate.mean == pytest.approx(half, rel=1e-9)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    estimate = statistics.t_interval(np.array([0.4]))
    assert estimate.mean == 0.4
    assert not estimate.has_interval


@pytest.mark.parametrize("values", [[], [math.nan], [0.1, math.inf]])
def test_empty_or_non_finite_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values"):
        statistics.t_interval(np.array(values))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_t_interval_covers_the_true_mean_95_percent_of_the_time(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    trials = 3000
    draws = generator.normal(0.6, 0.04, size=(trials, seeds))
    hits = sum(e.low <= 0.6 <= e.high for e in map(statistics.t_interval, draws))
    assert 0.93 < hits / trials < 0.97


def test_bootstrap_over_two_seeds_covers_far_too_rarely_which_is_why_t_is_used(
    generator: np.random.Generator,
) -> None:
    draws = generator.normal(0.0, 1.0, size=(200, 2))
    hits = sum(
        low <= 0.0 <= high
        for low, high in (
            statistics.stratified_bootstrap_interval(pair, generator, draws=200) for pair in draws
        )
    )
    assert hits / 200 < 0.7


def test_interquartile_mean_cuts_a_quarter_at_each_end() -> None:
    assert statistics.interquartile_mean(np.array([0.0, 0.4, 0.6, 100.0])) == pytest.approx(0.5)


@given(st.lists(finite, min_size=1, max_size=3))
def test_interquartile_mean_is_the_mean_below_four_scores(values: list[float]) -> None:
    array = np.array(values)
    assert statistics.interquartile_mean_is_mean(array)
    assert statistics.interquartile_mean(array) == pytest.approx(array.mean(), abs=1e-9)


def test_interquartile_mean_pools_runs_and_tasks() -> None:
    matrix = np.arange(24.0).reshape(4, 6)
    assert statistics.interquartile_mean(matrix) == pytest.approx(np.arange(6.0, 18.0).mean())


def test_bootstrap_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 3))
    first, again, other = (
        statistics.stratified_bootstrap_interval(scores, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_bootstrap_resamples_runs_within_each_task(generator: np.random.Generator) -> None:
    # No spread within a task: whatever is drawn again, the interquartile mean stays.
    scores = np.tile(np.array([0.1, 0.5, 0.9, 0.3]), (6, 1))
    low, high = statistics.stratified_bootstrap_interval(scores, generator)
    assert low == pytest.approx(high) == pytest.approx(statistics.interquartile_mean(scores))


def test_bootstrap_agrees_with_scipy_on_one_task(generator: np.random.Generator) -> None:
    scores = np.random.default_rng(3).normal(0.6, 0.05, size=12)
    low, high = statistics.stratified_bootstrap_interval(scores, generator, draws=8000)
    peer = scipy_stats.bootstrap(
        (scores,),
        lambda x, axis: scipy_stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=8000,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert (low, high) == pytest.approx((peer.low, peer.high), abs=0.004)


@given(samples)
def test_paired_p_equals_scipys_paired_test(values: list[float]) -> None:
    differences = np.array(values)
    if differences.std() < 1e-3:
        return
    expected = scipy_stats.ttest_rel(differences, np.zeros(len(differences))).pvalue
    assert p_of(differences) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_paired_p_without_spread_is_certain_either_way() -> None:
    assert p_of(np.array([0.0, 0.0])) == 1.0
    assert p_of(np.array([0.5, 0.5])) == 0.0
    assert math.isnan(p_of(np.array([0.5])))


@settings(max_examples=50)
@given(samples)
def test_sign_flip_p_equals_brute_force(values: list[float]) -> None:
    differences = np.array(values)
    observed = abs(differences.sum())
    sums = [
        abs((np.array(s) * differences).sum()) for s in itertools.product((1, -1), repeat=len(differences))
    ]
    slack = 1e-9 * max(1.0, np.abs(differences).sum())
    expected = np.mean([total >= observed - slack for total in sums])
    assert statistics.sign_flip_p(differences, np.random.default_rng(0)) == pytest.approx(expected, abs=1e-12)


def test_sign_flip_p_cannot_fall_below_its_floor(generator: np.random.Generator) -> None:
    assert statistics.sign_flip_p(np.ones(5), generator) == pytest.approx(2 / 2**5)


def test_drawn_sign_flips_agree_with_scipys_permutation_test(generator: np.random.Generator) -> None:
    differences = np.random.default_rng(2).normal(0.3, 1.0, size=18)
    peer = scipy_stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(5),
    )
    assert statistics.sign_flip_p(differences, generator) == pytest.approx(peer.pvalue, abs=0.015)


def test_contrasts_use_the_pairing() -> None:
    base = np.array([0.1, 0.5, 0.9])
    first, second = (
        [Run(run_id=str(seed), seeds=str(seed), final=float(value)) for seed, value in enumerate(values)]
        for values in (base + np.array([0.05, 0.051, 0.049]), base)
    )
    paired = compare(first, list(reversed(second)), ("a", "b"))
    assert paired.estimate is not None
    assert paired.estimate.mean == pytest.approx(0.05)
    assert paired.p < 0.001
    assert scipy_stats.ttest_ind(base + 0.05, base).pvalue > 0.5


def test_runs_without_a_partner_are_left_out() -> None:
    first, second = (
        [Run(run_id=str(seed), seeds=str(seed), final=0.1) for seed in seeds] for seeds in ((0, 1), (1, 2))
    )
    assert compare(first, second, ("a", "b")).n == 1
    assert compare(first[:1], second, ("a", "b")).verdict == "no matched pairs"


def test_holm_equals_the_textbook_example() -> None:
    adjusted = statistics.holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    p = np.array(p_values)
    rejected = np.zeros(len(p), dtype=bool)
    for position, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (len(p) - position) > 0.05:
            break
        rejected[index] = True
    assert (statistics.holm(p) <= 0.05).tolist() == rejected.tolist()


def test_holm_does_not_count_tests_that_were_not_made() -> None:
    adjusted = statistics.holm(np.array([0.02, math.nan]))
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])


@given(samples, samples)
def test_probability_of_improvement_is_the_mann_whitney_statistic(
    first: list[float], second: list[float]
) -> None:
    peer = scipy_stats.mannwhitneyu(first, second).statistic / (len(first) * len(second))
    assert statistics.probability_of_improvement(np.array(first), np.array(second)) == pytest.approx(peer)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))]
)
def test_expected_maximum_of_normals_has_its_closed_form(count: int, expected: float) -> None:
    assert statistics.expected_maximum_of_normals(count) == pytest.approx(expected, abs=1e-6)


def test_best_in_window_looks_only_inside_and_at_the_starting_policy_too() -> None:
    steps, values = np.array([0, 2, 4, 6]), np.array([0.2, 0.3, 0.5, 0.8])
    assert statistics.best_in_window(steps, values, 4) == (0.5, 4)
    assert statistics.best_in_window(steps, values[::-1], 4) == (0.8, 0)
    with pytest.raises(ValueError, match="window = 1"):
        statistics.best_in_window(steps[1:], values[1:], 1)


def test_final_value_is_the_mean_of_the_last_evaluations() -> None:
    assert statistics.final_value(np.array([0.1, 0.4, 0.5, 0.6]), 3) == pytest.approx(0.5)
    assert statistics.final_value(np.array([0.1, 0.4, 0.5, 0.6]), 1) == 0.6


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.integers(0, 3))
def test_area_under_curve_equals_integration_within_the_window(values: list[float], beyond: int) -> None:
    steps = np.cumsum(np.arange(1, len(values) + 1 + beyond)).astype(float)
    last = len(values) - 1
    expected = integrate.trapezoid(values, steps[: last + 1]) / (steps[last] - steps[0])
    longer = np.array([*values, *([9.0] * beyond)])
    assert statistics.area_under_curve(steps, longer, int(steps[last])) == pytest.approx(expected)


def test_a_curve_that_ends_early_is_carried_on_to_the_window_s_end() -> None:
    steps, values = np.array([0.0, 2.0]), np.array([0.4, 0.2])
    # Two steps at 0.3 on average, then eight at 0.2.
    assert statistics.area_under_curve(steps, values, 10) == pytest.approx((2 * 0.3 + 8 * 0.2) / 10)
    assert statistics.area_under_curve(steps, values, 0) == 0.4
    with pytest.raises(ValueError, match="window = 1"):
        statistics.area_under_curve(steps + 2, values, 1)


def test_steps_to_threshold_is_the_first_step_that_reaches_it_within_the_window() -> None:
    steps, values = np.array([0, 2, 4, 6]), np.array([0.3, 0.5, 0.4, 0.7])
    assert statistics.steps_to_threshold(steps, values, 0.5, 6) == 2
    assert statistics.steps_to_threshold(steps, values, 0.6, 6) == 6
    assert math.isnan(statistics.steps_to_threshold(steps, values, 0.6, 5))
    assert math.isnan(statistics.steps_to_threshold(steps, values, math.nan, 6))


@given(st.lists(st.integers(0, 9) | st.none(), min_size=1, max_size=9))
def test_median_step_is_the_kaplan_meier_median(reached: list[int | None]) -> None:
    watched = 10
    never = np.array([step is None for step in reached])
    times = np.array([watched if step is None else step for step in reached], dtype=float)
    curve = scipy_stats.ecdf(scipy_stats.CensoredData.right_censored(times, never)).sf
    below = curve.quantiles[curve.probabilities <= 0.5 + 1e-12]
    expected = below[0] if len(below) else math.inf
    found = statistics.median_step(np.where(never, np.nan, times))
    assert found == expected or (expected == watched and math.isinf(found))


def test_fewer_than_half_have_no_median_step() -> None:
    assert statistics.median_step(np.array([4.0, 2.0, math.nan, math.nan])) == 4.0
    assert statistics.median_step(np.array([2.0, math.nan, math.nan])) == math.inf


def test_the_interval_of_a_share_has_its_closed_form_at_the_ends() -> None:
    # None of n: the upper end p solves (1 - p)^n = 0.025.
    assert statistics.share_interval(0, 5) == pytest.approx((0.0, 1 - 0.025**0.2))
    assert statistics.share_interval(5, 5) == pytest.approx((0.025**0.2, 1.0))
    assert statistics.share_interval(2, 5) == pytest.approx(
        (scipy_stats.beta.ppf(0.025, 2, 4), scipy_stats.beta.ppf(0.975, 3, 3))
    )


@pytest.mark.parametrize("n", [2, 5, 20])
def test_the_interval_of_a_share_covers_every_truth_19_times_in_20(n: int) -> None:
    intervals = [statistics.share_interval(count, n) for count in range(n + 1)]
    for truth in np.linspace(0.0, 1.0, 101):
        covering = [count for count, (low, high) in enumerate(intervals) if low <= truth <= high]
        assert scipy_stats.binom.pmf(covering, n, truth).sum() >= 0.95 - 1e-9


def test_collapse_is_below_half_of_the_start() -> None:
    assert statistics.collapsed(0.17, 0.36)
    assert not statistics.collapsed(0.18, 0.36)


def test_splitting_one_method_in_two_finds_a_difference_no_more_often_than_it_may() -> None:
    generator = np.random.default_rng(11)
    trials = 1000
    finals = generator.normal(0.6, 0.04, size=(trials, 2, 5))
    found = sum(p_of(first - second) < 0.05 for first, second in finals)
    # Three binomial standard errors above 5% of 1,000.
    assert found / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_spread_is_never_taken_as_smaller_than_the_known_measurement_error() -> None:
    lucky = np.array([0.6000, 0.6001])
    floored = statistics.t_interval(lucky, least_sd=0.02)
    assert floored.sd == 0.02
    assert floored.high - floored.mean == pytest.approx(math.tan(math.pi * 0.475) * 0.02 / math.sqrt(2))
    spread = np.array([0.5, 0.7])
    assert statistics.t_interval(spread, least_sd=0.02) == statistics.t_interval(spread)


def test_two_pairs_that_agree_by_luck_are_no_evidence() -> None:
    differences = np.array([0.742 - 0.766, 0.617 - 0.642])
    assert p_of(differences) < 0.05
    assert p_of(differences, 0.012) > 0.15

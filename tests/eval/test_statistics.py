"""The statistics of an evaluation, against scipy, brute force and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cppo_lab.eval.statistics import (
    bootstrap,
    compare,
    effective_size,
    maj_at,
    mean_stderr,
    pass_at,
    powers_of_two,
    wilson,
)


def grid(*rows: str) -> np.ndarray:
    """`1` is right: one row of samples per problem."""
    return np.array([[mark == "1" for mark in row] for row in rows])


@pytest.mark.parametrize(("correct", "n"), [(0, 5), (3, 7), (7, 7), (250, 1319)])
def test_wilson_is_scipys(correct: int, n: int) -> None:
    expected = stats.binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson(correct / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_stderr_is_the_harness_s() -> None:
    values = np.array([1.0, 0.0, 0.0, 1.0, 1.0])
    assert mean_stderr(values) == pytest.approx(np.std(values, ddof=1) / math.sqrt(5))
    assert math.isnan(mean_stderr(np.array([1.0])))


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6), st.integers(1, 5))
def test_pass_at_k_is_the_mean_over_all_subsets(rows: list[list[bool]], k: int) -> None:
    every = [np.mean([any(chosen) for chosen in itertools.combinations(row, k)]) for row in rows]
    assert pass_at(np.array(rows), k) == pytest.approx(np.mean(every))


def test_pass_at_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and the 2"):
        pass_at(grid("10"), 3)


@pytest.mark.parametrize(
    ("rows", "answers", "expected"),
    [
        (["110"], [["5", "5", "6"]], 1.0),
        (["100"], [["5", "6", "6"]], 0.0),
        (["10"], [["5", "6"]], 0.5),
        (["1000"], [["5", "6", "7", "8"]], 0.25),
        # Right answers in two spellings are one answer; wrong ones are not.
        (["1100"], [["1/2", "0.5", "7", "8"]], 1.0),
        (["000"], [[None, None, None]], 0.0),
        (["100"], [["5", None, None]], 1.0),
        (["10", "01"], [["5", "5.5"], ["3", "4"]], 0.5),
    ],
)
def test_majority_counts_votes(rows: list[str], answers: list[list[str | None]], expected: float) -> None:
    assert maj_at(grid(*rows), answers) == pytest.approx(expected)


def test_effective_size_lies_between_problems_and_samples() -> None:
    assert effective_size(grid("1", "0", "0")) == 3
    # All samples of a problem alike: nothing is learnt from the second one.
    assert effective_size(grid("1111", "0000", "1111", "0000")) == pytest.approx(3, abs=0.01)
    # Problems alike: each sample counts.
    assert effective_size(grid("10", "01", "10")) == 6
    assert effective_size(grid("11", "11")) == 2


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 8))
def test_clustered_wilson_is_never_narrower_than_that_of_independent_samples(
    seed: int, problems: int, samples: int
) -> None:
    rng = np.random.default_rng(seed)
    correct = rng.random((problems, samples)) < rng.random((problems, 1))
    low, high = wilson(float(correct.mean()), effective_size(correct))
    free_low, free_high = wilson(float(correct.mean()), correct.size)
    assert low <= free_low + 1e-12
    assert high >= free_high - 1e-12


def test_intervals_cover_the_truth_when_samples_of_a_problem_resemble_each_other() -> None:
    rng = np.random.default_rng(0)
    truth = 0.4
    inside = {"wilson": 0, "bootstrap": 0, "naive": 0}
    for _ in range(300):
        ability = rng.beta(0.8, 1.2, size=(100, 1))
        correct = rng.random((100, 16)) < ability
        share = float(correct.mean())
        for name, (low, high) in {
            "wilson": wilson(share, effective_size(correct)),
            "bootstrap": bootstrap(correct.mean(axis=1)),
            "naive": wilson(share, correct.size),
        }.items():
            inside[name] += low <= truth <= high
    assert inside["wilson"] >= 0.91 * 300
    assert inside["bootstrap"] >= 0.91 * 300
    assert inside["naive"] < 0.7 * 300, "the simulation would not notice intervals that forget the clusters"


def test_bootstrap_is_seeded_and_a_point_where_nothing_varies() -> None:
    values = np.random.default_rng(1).random(50)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(np.ones(5)) == (1.0, 1.0)


def test_comparison_of_single_samples_is_mcnemar_s_exact_test() -> None:
    first = np.array([1.0] * 30 + [0.0] * 20)
    second = np.array([1.0] * 25 + [0.0] * 5 + [1.0] * 15 + [0.0] * 5)
    found = compare(first, second)
    assert (found.better, found.worse, found.same) == (15, 5, 30)
    assert found.difference == pytest.approx(0.2)
    assert found.p_value == pytest.approx(stats.binomtest(15, 20).pvalue)
    assert found.interval[0] < 0.2 < found.interval[1]


def test_comparison_of_means_is_a_sign_flip_test() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(12)
    differences = rng.normal(0.1, 0.2, size=12)
    found = compare(first, first + differences)
    flips = np.array(list(itertools.product((1, -1), repeat=12))) @ differences / 12
    exact = np.mean(np.abs(flips) >= abs(differences.mean()) - 1e-12)
    assert found.test == "sign-flip permutation test"
    assert found.p_value == pytest.approx(exact, abs=0.01)


def test_a_model_does_not_differ_from_itself() -> None:
    values = np.array([0.25, 1.0, 0.0])
    found = compare(values, values)
    assert (found.p_value, found.difference, found.same) == (1.0, 0.0, 3)


def test_powers_of_two_end_with_k() -> None:
    assert powers_of_two(1) == [1]
    assert powers_of_two(12) == [1, 2, 4, 8, 12]
    assert powers_of_two(16) == [1, 2, 4, 8, 16]

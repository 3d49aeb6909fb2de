"""Choosing by other seeds than those that are judged: unbiased, and at the level it states."""

from __future__ import annotations

import numpy as np
from scipy import stats

from cppo_lab.analysis.cross_fitting import Candidate, cross_fitted

FLAT = np.array([0.72, 0.76, 0.765, 0.77, 0.765, 0.7])
PEAKED = np.array([0.72, 0.74, 0.71, 0.66, 0.55, 0.39])


def copies(means: np.ndarray, seeds: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Final accuracies [seeds, settings] of two copies of one method, from the same starting policies."""
    policies = generator.normal(0.0, 0.03, (seeds, 1))
    one, other = (
        means
        + policies
        + generator.normal(0.0, 0.02, (seeds, 1))
        + generator.normal(0.0, 0.04, (seeds, len(means)))
        for _ in range(2)
    )
    return one, other


def is_different(one: np.ndarray, other: np.ndarray) -> bool:
    fit = cross_fitted([(1.0, Candidate.by_its_score(one)), (-1.0, Candidate.by_its_score(other))])
    return bool(abs(fit.mean) > float(stats.t.ppf(0.975, len(one) - 1)) * fit.error)


def test_two_copies_of_one_method_differ_at_most_as_often_as_stated() -> None:
    generator = np.random.default_rng(3)
    for means in (FLAT, PEAKED):
        found = sum(is_different(*copies(means, 8, generator)) for _ in range(150))
        # Five percent of 150 is 7.5; above 15 lies 0.4% of the binomial distribution.
        assert found <= 15


def test_the_best_of_equal_settings_is_not_reported_as_better_than_they_are() -> None:
    generator = np.random.default_rng(4)
    scores = [generator.normal(0.5, 0.05, (8, 7)) for _ in range(150)]
    fitted = np.mean([cross_fitted([(1.0, Candidate.by_its_score(score))]).mean for score in scores])
    naive = np.mean([score.mean(axis=0).max() for score in scores])
    assert abs(fitted - 0.5) < 0.005
    assert naive > 0.515


def test_a_setting_that_is_clearly_best_is_chosen_by_every_half() -> None:
    score = np.array([[0.5, 0.9, 0.2]] * 4) + np.arange(4)[:, None] * 0.01
    fit = cross_fitted([(1.0, Candidate.by_its_score(score))])
    np.testing.assert_allclose(fit.per_seed, score[:, 1])
    assert fit.mean == np.mean(score[:, 1])
    assert fit.known == 1.0


def test_a_seed_without_an_outcome_is_not_counted() -> None:
    score = np.array([[0.5, 0.9]] * 4)
    outcome = np.array([[0.0, 0.1], [0.0, 0.3], [0.0, np.nan], [0.0, 0.2]])
    fit = cross_fitted([(1.0, Candidate(score, outcome))])
    np.testing.assert_allclose(fit.per_seed, [0.1, 0.3, np.nan, 0.2])
    assert abs(fit.mean - 0.2) < 1e-12
    assert fit.known == 0.75


def test_one_seed_has_nothing_to_choose_by() -> None:
    fit = cross_fitted([(1.0, Candidate.by_its_score(np.array([[0.1, 0.2]])))])
    assert np.isnan(fit.mean)
    assert fit.known == 0.0

"""The report's statistics equal those of rliable and statsmodels on the same numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytestmark = [pytest.mark.rliable, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("rliable", reason="rliable is not installed: make test-rliable")

from rliable import library, metrics  # noqa: E402
from scipy import stats as scipy_stats  # noqa: E402
from statsmodels.stats.multitest import multipletests  # noqa: E402
from statsmodels.stats.power import TTestPower  # noqa: E402
from statsmodels.stats.proportion import proportion_confint  # noqa: E402

from cppo_lab.analysis import statistics  # noqa: E402
from cppo_lab.analysis.contrasts import Pair, contrast  # noqa: E402

SHAPES = ((4, 1), (5, 1), (7, 3), (10, 4), (16, 26))
DRAWS = 20_000


def matrices() -> Iterator[np.ndarray]:
    """Scores [runs, tasks] of several shapes: symmetric, skewed, and with many ties."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        for shape in SHAPES:
            yield rng.normal(0.5, 0.2, size=shape)
            yield rng.gamma(1.5, 0.2, size=shape)
            yield rng.integers(0, 4, size=shape) / 4


def test_interquartile_means_are_rliable_s() -> None:
    for scores in matrices():
        assert statistics.interquartile_mean(scores) == pytest.approx(
            metrics.aggregate_iqm(scores), abs=1e-12
        )


def test_probabilities_of_improvement_are_rliable_s() -> None:
    rng = np.random.default_rng(0)
    for scores in matrices():
        other = np.round(scores + rng.normal(0, 0.1, size=scores.shape), 2)
        # rliable averages over tasks, each with runs of its own.
        per_task = [
            statistics.probability_of_improvement(scores[:, i], other[:, i]) for i in range(scores.shape[1])
        ]
        assert np.mean(per_task) == pytest.approx(
            metrics.probability_of_improvement(scores, other), abs=1e-12
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["symmetric", "skewed"])
def test_bootstrap_intervals_are_rliable_s_up_to_its_own_noise(shape: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(shape[0])
    scores = rng.normal(0.5, 0.2, size=shape) if kind == "symmetric" else rng.gamma(1.5, 0.2, size=shape)

    def interquartile(matrix: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_iqm(matrix)])

    def theirs(seed: int) -> np.ndarray:
        # It draws from numpy's global state, whatever random_state it is given.
        np.random.seed(seed)
        _, intervals = library.get_interval_estimates({"scores": scores}, interquartile, reps=DRAWS)
        return intervals["scores"][:, 0]

    first, second = theirs(0), theirs(1)
    mine = np.array(statistics.stratified_bootstrap_interval(scores, np.random.default_rng(0), draws=DRAWS))
    width = first[1] - first[0]
    noise = max(float(np.abs(first - second).max()), 0.004 * width)
    assert np.abs(mine - first).max() <= 4 * noise
    assert np.abs(mine - first).max() <= 0.03 * width


def test_holm_is_statsmodels_s() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 20):
        for _ in range(50):
            p = rng.random(count) ** 3
            np.testing.assert_allclose(statistics.holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_paired_tests_are_scipy_s() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 10, 13):
        first, second = rng.normal(size=n), rng.normal(0.5, 1.2, size=n)
        found = contrast("a", "b", [Pair(value, 0.0, frozenset()) for value in first - second])
        assert found.estimate is not None
        assert found.p == pytest.approx(scipy_stats.ttest_rel(first, second).pvalue, abs=1e-12)
        interval = scipy_stats.ttest_rel(first, second).confidence_interval(0.95)
        assert (found.estimate.low, found.estimate.high) == pytest.approx(tuple(interval), abs=1e-12)
        flips = scipy_stats.permutation_test(
            (first - second,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert found.p_sign_flip == pytest.approx(flips.pvalue, abs=1e-12)


def test_power_is_statsmodels_s() -> None:
    for sd, n, alpha in (
        (0.1, 4, 0.05),
        (0.03, 10, 0.05),
        (1.0, 40, 0.05),
        (0.1, 5, 0.05 / 6),
        (0.02, 20, 0.05 / 3),
    ):
        difference = statistics.detectable_difference(sd, n, level=1 - alpha)
        power = TTestPower().power(difference / sd, nobs=n, alpha=alpha, alternative="two-sided")
        assert power == pytest.approx(0.8, abs=1e-3)
        needed = statistics.pairs_to_detect(difference, sd, level=1 - alpha)
        assert needed in (n, n + 1)


def test_intervals_of_shares_are_statsmodels_s() -> None:
    for n in (1, 2, 5, 10, 20):
        for count in range(n + 1):
            theirs = proportion_confint(count, n, alpha=0.05, method="beta")
            assert statistics.share_interval(count, n) == pytest.approx(theirs, abs=1e-9)

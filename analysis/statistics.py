"""Statistics over seeds. Pure functions of numpy arrays; randomness only through the Generator given.

The headline interval is Student's t over seeds at every n. With two to five seeds a bootstrap over seeds can only
redraw those few values and covers far too rarely (at n = 2 it has three distinct means), while t accounts for the small
n by its quantile (12.7 at n = 2, 4.3 at n = 3, 2.8 at n = 5). The interquartile mean with a stratified bootstrap
(Agarwal et al., arXiv:2108.13264) is for runs x tasks matrices with enough scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

Array = npt.NDArray[np.float64]
LEVEL = 0.95
# An exact sign-flip test enumerates 2^n assignments; beyond this n it draws them instead.
EXACT_SIGN_FLIPS = 14
# Midpoints of equal shares of a distribution: a mean over its values there is its expectation.
_QUANTILES = (np.arange(2000) + 0.5) / 2000


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds and its interval; `low` and `high` are NaN when n gives none (n < 2).

    `sd` is the spread the interval was made with: the sample's, or the known measurement error if that is larger, with
    sqrt(n) times `shared`, the standard error that all values have in common and no number of them averages out.
    """

    mean: float
    low: float
    high: float
    n: int
    sd: float
    shared: float = 0.0
    values: tuple[float, ...] = ()
    """The values themselves, where there are too few for an interval."""

    @property
    def own_sd(self) -> float:
        """The spread without what all values have in common."""
        return math.sqrt(max(0.0, self.sd**2 - self.n * self.shared**2))

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def shows_interval(self) -> bool:
        """Whether its interval is told: that of two seeds has whatever width their distance happened to have."""
        return self.has_interval and self.n > 2


def t_interval(
    values: Array, level: float = LEVEL, *, least_sd: float = 0.0, shared_error: float = 0.0
) -> Estimate:
    """Mean of `values` [n] with Student's t interval; zero spread gives a zero-width interval.

    least_sd: the spread that measurement error alone must cause. Two or three seeds can agree by chance far
    better than their evaluations are exact; their spread is then raised to this.
    shared_error: a standard error that all values have in common, which no number of them averages out.
    Raises ValueError for an empty or non-finite array.
    """
    sample = _finite(values)
    n = len(sample)
    mean = float(sample.mean())
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n, math.nan, shared_error, tuple(map(float, sample)))
    sd = math.hypot(max(float(sample.std(ddof=1)), least_sd), shared_error * math.sqrt(n))
    half = float(scipy_stats.t.ppf(0.5 + level / 2, n - 1)) * sd / math.sqrt(n)
    few = tuple(map(float, sample)) if n == 2 else ()
    return Estimate(mean, mean - half, mean + half, n, sd, shared_error, few)


def interquartile_mean(scores: Array) -> float:
    """Mean of the middle half of all scores of `scores` [n] or [runs, tasks] (25% cut at each end).

    Equal to the plain mean below four scores, see `interquartile_mean_is_mean`.
    """
    return float(scipy_stats.trim_mean(_finite(scores), 0.25))


def interquartile_mean_is_mean(scores: Array) -> bool:
    """True when cutting a quarter at each end cuts nothing."""
    return np.size(scores) < 4


def stratified_bootstrap_interval(
    scores: Array, generator: np.random.Generator, *, draws: int = 2000, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile interval of the interquartile mean of `scores` [runs, tasks].

    Resamples runs within each task, so it answers: what if the seeds were drawn again on these tasks.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    _finite(matrix)
    runs, tasks = matrix.shape
    rows = generator.integers(0, runs, size=(draws, runs, tasks))
    drawn = np.take_along_axis(np.broadcast_to(matrix, (draws, runs, tasks)), rows, axis=1).reshape(draws, -1)
    means = scipy_stats.trim_mean(drawn, 0.25, axis=1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def t_p(distance: float, sd: float, n: int) -> float:
    """Two-sided p of Student's t test for a mean of `n` values of spread `sd`, `distance` away from what is tested."""
    if sd == 0.0:
        return 1.0 if distance == 0.0 else 0.0
    return float(2 * scipy_stats.t.sf(abs(distance) / (sd / math.sqrt(n)), n - 1))


def sign_flip_p(differences: Array, generator: np.random.Generator, draws: int = 20_000) -> float:
    """Two-sided p of the sign-flip test on `differences` [n]: exact up to 14 pairs, drawn beyond.

    Its smallest possible value is 2 / 2^n, so below six pairs it can never fall under 0.05.
    """
    sample = _finite(differences)
    n = len(sample)
    if n <= EXACT_SIGN_FLIPS:
        codes = np.arange(2**n)[:, None] >> np.arange(n)[None, :]
        signs = 1.0 - 2.0 * (codes & 1)
    else:
        signs = generator.choice(np.array([-1.0, 1.0]), size=(draws, n))
    sums = np.abs(signs @ sample)
    observed = abs(float(sample.sum()))
    tolerance = 1e-12 * max(1.0, float(np.abs(sample).sum()))
    at_least = int((sums >= observed - tolerance).sum())
    if n <= EXACT_SIGN_FLIPS:
        return at_least / len(sums)
    return (at_least + 1) / (len(sums) + 1)


def holm(p_values: Array) -> Array:
    """Holm's step-down adjustment of `p_values` [m]; NaN entries stay NaN and do not count as tests."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, float(p[index]) * (len(order) - position)))
        adjusted[index] = running
    return adjusted


def probability_of_improvement(treatment: Array, baseline: Array) -> float:
    """P(treatment run beats baseline run), every run of `treatment` [n] against every one of `baseline` [m].

    Ties count one half (the Mann-Whitney statistic over n * m).
    """
    first, second = _finite(treatment), _finite(baseline)
    wins = (first[:, None] > second[None, :]).sum() + 0.5 * (first[:, None] == second[None, :]).sum()
    return float(wins) / (len(first) * len(second))


def detectable_difference(sd: float, n: int, power: float = 0.8, level: float = LEVEL) -> float:
    """True paired difference that a t test on n pairs of spread `sd` finds with probability `power`."""
    if n < 2 or not sd > 0:
        return math.nan
    low, high = 0.0, 1.0
    while _t_power(high, n, level) < power:
        high *= 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _t_power(middle, n, level) >= power else (middle, high)
    return high * sd


def pairs_to_detect(
    difference: float,
    sd: float,
    power: float = 0.8,
    level: float = LEVEL,
    most: int = 1000,
    shared_error: float = 0.0,
) -> int | None:
    """Pairs a t test needs to find a true `difference` of spread `sd` with probability `power`.

    shared_error: a standard error that all pairs have in common.

    None when that would be more than `most`, or when there is no difference or no spread to go by.
    """
    if not math.hypot(sd, shared_error) > 0 or not abs(difference) > 0 or not math.isfinite(difference):
        return None

    def power_with(n: int) -> float:
        return _t_power(abs(difference) / math.hypot(sd, shared_error * math.sqrt(n)), n, level)

    return _fewest(power_with, power, most)


def most_power(difference: float, shared_error: float, level: float = LEVEL) -> float:
    """The power of a test for a true `difference` that no number of pairs exceeds: that of pairs without end."""
    if shared_error == 0:
        return float(difference != 0)
    effect = abs(difference) / shared_error
    critical = float(scipy_stats.norm.ppf(0.5 + level / 2))
    return float(scipy_stats.norm.sf(critical - effect) + scipy_stats.norm.cdf(-critical - effect))


def pairs_to_show_equal(
    mean: float,
    sd: float,
    margin: float,
    power: float = 0.8,
    level: float = LEVEL,
    most: int = 1000,
    shared_error: float = 0.0,
) -> int | None:
    """Pairs that show a true `mean` of spread `sd` to lie within `margin` of zero, with probability `power`.

    Shown is what differs from the nearer margin by a two-sided t test. The sample may err towards either margin, so
    that the power counts both: at a mean of zero, pairs enough for one margin would miss twice as often.
    None when that would be more than `most`, when the mean is not within the margin, or without a spread to go by.
    """
    if not math.isfinite(sd) or not math.hypot(sd, shared_error) > 0 or not abs(mean) < margin:
        return None

    def power_with(n: int) -> float:
        spread = math.hypot(sd, shared_error * math.sqrt(n))
        return _equality_power(mean / spread, margin / spread, n, level)

    return _fewest(power_with, power, most)


def expected_maximum_of_normals(count: int) -> float:
    """Mean of the largest of `count` independent standard normals: how far a best-of selection overshoots."""
    if count < 1:
        raise ValueError(f"count = {count}: must be at least 1.")
    grid = np.linspace(-9.0, 9.0, 20_001)
    density = count * scipy_stats.norm.pdf(grid) * scipy_stats.norm.cdf(grid) ** (count - 1)
    return float(np.trapezoid(grid * density, grid))


def final_value(values: Array, last: int) -> float:
    """Mean of the last `last` entries of `values` [evaluations] (of all, where there are fewer)."""
    return float(_finite(values)[-last:].mean())


def best_in_window(steps: Array, values: Array, window: int) -> tuple[float, int]:
    """Largest value at a step within 0..window and the first step that reached it.

    `steps` [evaluations], `values` [evaluations]; raises ValueError when no evaluation lies in the window.
    """
    inside = np.asarray(steps) <= window
    if not inside.any():
        raise ValueError(f"window = {window}: no evaluation lies within it.")
    where = int(np.argmax(np.where(inside, values, -np.inf)))
    return float(values[where]), int(steps[where])


def area_under_curve(steps: Array, values: Array, window: int) -> float:
    """Trapezoid mean of `values` [evaluations] over the part of `steps` [evaluations] within 0..window.

    A curve that ends before the window does is carried on at its last value; a single evaluation is its own mean.
    Raises ValueError when no evaluation lies in the window.
    """
    inside = np.asarray(steps) <= window
    if not inside.any():
        raise ValueError(f"window = {window}: no evaluation lies within it.")
    x, y = np.asarray(steps, dtype=np.float64)[inside], _finite(values)[inside]
    if inside.all():
        x, y = np.append(x, window), np.append(y, y[-1])
    width = float(x[-1] - x[0])
    return float(np.trapezoid(y, x)) / width if width else float(y[0])


def steps_to_threshold(steps: Array, values: Array, threshold: float, window: int) -> float:
    """First of `steps` [evaluations] within 0..window whose value reaches `threshold`; NaN when none does."""
    reached = np.flatnonzero((np.asarray(values) >= threshold) & (np.asarray(steps) <= window))
    return float(np.asarray(steps)[reached[0]]) if len(reached) else math.nan


def median_step(steps: Array) -> float:
    """Step by which half of the runs, or more, had reached something; infinite where fewer than half did.

    `steps` [n], NaN for a run that never did: the Kaplan-Meier median, all such runs having been watched to the end.
    """
    ordered = np.sort(np.where(np.isnan(steps), np.inf, steps))
    if not len(ordered):
        raise ValueError("no runs to take the median of.")
    return float(ordered[math.ceil(len(ordered) / 2) - 1])


def share_interval(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval of the share behind `count` of `n` runs; it never covers less than `level`."""
    interval = scipy_stats.binomtest(count, n).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def collapsed(final: float, start: float) -> bool:
    """Final accuracy below half of the starting policy's."""
    return final < start / 2


def _t_power(effect: float, n: int, level: float) -> float:
    if n < 2:
        return 0.0
    critical = float(scipy_stats.t.ppf(0.5 + level / 2, n - 1))
    shift = effect * math.sqrt(n)
    upper = float(scipy_stats.nct.sf(critical, n - 1, shift))
    lower = float(scipy_stats.nct.cdf(-critical, n - 1, shift))
    # The far tail of the noncentral t underflows to NaN for large shifts, where its true value is 0.
    return upper + (lower if math.isfinite(lower) else 0.0)


def _equality_power(mean: float, margin: float, n: int, level: float) -> float:
    """Probability that n values of spread 1 lie significantly within `margin` of zero, around a true `mean`."""
    if n < 2:
        return 0.0
    spreads = np.sqrt(scipy_stats.chi2.ppf(_QUANTILES, n - 1) / (n - 1))
    critical = float(scipy_stats.t.ppf(0.5 + level / 2, n - 1))
    # What the test leaves of the margin: the sample's mean, which is independent of its spread, must lie within.
    room = np.maximum(0.0, margin * math.sqrt(n) - critical * spreads)
    shift = mean * math.sqrt(n)
    inside = scipy_stats.norm.cdf(room - shift) - scipy_stats.norm.cdf(-room - shift)
    return float(inside.mean())


def _fewest(power_with: Callable[[int], float], power: float, most: int) -> int | None:
    """The least n up to `most` with at least `power`, which more of them keep; None when that is not reached."""
    if power_with(most) < power:
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_with(middle) >= power else (middle, high)
    return high


def _finite(values: Array) -> Array:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if array.size == 0:
        raise ValueError("no values to summarise.")
    if not np.isfinite(array).all():
        raise ValueError("values must be finite; drop or account for missing runs first.")
    return array

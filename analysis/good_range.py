"""Sensitivity: final accuracy over a learning rate or a threshold, and how wide the good range of a method is.

The good range is the number of octaves (doublings of the axis) over which mean final accuracy lies within TOLERANCE of
its highest mean, with straight lines between the settings tried on a logarithmic axis. It needs not be in one piece.
The highest of several noisy means is too high, so a range is somewhat too narrow, and the more so the noisier the runs;
two methods with the same seeds suffer alike.

A range that reaches the smallest or largest setting tried may go on beyond it. It is a lower bound then, said as such,
and no claim is decided by what was not tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from cppo_lab.analysis.claims import MARGIN
from cppo_lab.analysis.contrasts import Contrast, Pair, estimate
from cppo_lab.analysis.grids import Grid, shared_pairs
from cppo_lab.analysis.statistics import LEVEL, Array, Estimate

TOLERANCE = MARGIN
"""Settings within three points of the best are good."""
FEWEST_POINTS = 3
"""Settings that a curve needs."""
DRAWS = 2000
"""Of the bootstrap over seeds."""


@dataclass(frozen=True)
class GoodRange:
    """The octaves within TOLERANCE of the best; the interval is within 0 and what was tried. `open_below` and
    `open_above`: it reaches the smallest or largest setting tried.
    """

    octaves: Estimate
    open_below: bool
    open_above: bool

    @property
    def is_censored(self) -> bool:
        """Whether the true range may be wider."""
        return self.open_below or self.open_above


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """A method along one axis: its grid, mean final accuracy at each setting, the place of the best, and the range."""

    grid: Grid
    curve: tuple[Estimate, ...]
    best: int
    good: GoodRange

    @property
    def is_interior(self) -> bool:
        """Whether settings on both sides of the best were tried."""
        return 0 < self.best < len(self.curve) - 1

    @property
    def values(self) -> Array:
        """The settings, [settings]."""
        return self.grid.points[:, 0]


def sensitivity(grid: Grid) -> Sensitivity | None:
    """The curve along a grid of one axis; None below FEWEST_POINTS settings."""
    if len(grid.axes) != 1 or len(grid.points) < FEWEST_POINTS or not grid.n:
        return None
    finals, errors = grid.values("final"), grid.values("final_error")
    curve = [
        estimate(column, its_errors.tolist()) for column, its_errors in zip(finals.T, errors.T, strict=True)
    ]
    known = tuple(each for each in curve if each is not None)
    best = int(np.argmax([each.mean for each in known]))
    return Sensitivity(grid, known, best, good_range(octaves_of(grid), finals))


def octaves_of(grid: Grid) -> Array:
    """The settings of a grid of one axis on a logarithmic scale to base two, [settings]."""
    return np.log2(grid.points[:, 0])


def good_octaves(octaves: Array, curves: Array, tolerance: float = TOLERANCE) -> Array:
    """Octaves within `tolerance` of the highest point of each of `curves` [..., settings] over `octaves` [settings]."""
    level = curves.max(axis=-1, keepdims=True) - tolerance
    low = np.minimum(curves[..., :-1], curves[..., 1:])
    high = np.maximum(curves[..., :-1], curves[..., 1:])
    rise = np.maximum(high - low, np.finfo(np.float64).eps)
    share = np.where(low >= level, 1.0, np.clip((high - level) / rise, 0.0, 1.0))
    widths: Array = (np.diff(octaves) * share).sum(axis=-1)
    return widths


def good_range(octaves: Array, finals: Array) -> GoodRange:
    """The good range of `finals` [seeds, settings] with a bootstrap interval over seeds."""
    means = finals.mean(axis=0)
    width = float(good_octaves(octaves, means))
    tried = float(octaves[-1] - octaves[0])
    seen = _with_bootstrap(width, finals, lambda drawn: good_octaves(octaves, drawn))
    within = Estimate(
        seen.mean,
        max(0.0, seen.low),
        min(tried, seen.high) if seen.has_interval else seen.high,
        seen.n,
        seen.sd,
    )
    level = means.max() - TOLERANCE
    return GoodRange(within, bool(means[0] >= level), bool(means[-1] >= level))


def range_contrast(treatment: Grid, baseline: Grid) -> Contrast:
    """The difference of two good ranges in octaves, over the seeds that both have.

    The error is that of a bootstrap that draws the same seeds for both. The values of the pairs are jackknife
    pseudo-values, what each seed adds.
    """
    pairs = shared_pairs(treatment, baseline)
    first, second = treatment.on(pairs), baseline.on(pairs)
    names = (treatment.method, baseline.method)
    if not pairs:
        return Contrast(*names, (), None)
    one, other = first.values("final"), second.values("final")
    both = np.concatenate([one, other], axis=1)
    x, y, split = octaves_of(first), octaves_of(second), one.shape[1]

    def difference(means: Array) -> Array:
        return good_octaves(x, means[..., :split]) - good_octaves(y, means[..., split:])

    whole = float(difference(both.mean(axis=0)))
    seen = _with_bootstrap(whole, both, difference)
    n = len(pairs)
    without = difference((both.sum(axis=0) - both) / (n - 1)) if n > 1 else np.array([whole])
    kept = tuple(
        Pair(n * whole - (n - 1) * float(value), math.nan, runs_of(first, row) | runs_of(second, row))
        for row, value in enumerate(without)
    )
    made = Contrast(*names, kept, seen)
    return Contrast(*names, kept, seen, p_adjusted=made.p)


def runs_of(grid: Grid, row: int) -> frozenset[str]:
    """The ids of the runs of one seed."""
    return frozenset(run.run_id for run in grid.runs[row])


def estimate_with_error(mean: float, error: float, n: int, shared: float = 0.0) -> Estimate:
    """A mean with a given standard error, and Student's t interval over n seeds.

    shared: a further standard error that no number of seeds averages out.
    """
    if n < 2 or not math.isfinite(error):
        return Estimate(mean, math.nan, math.nan, n, math.nan, shared)
    error = math.hypot(error, shared)
    half = float(scipy_stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * error
    return Estimate(mean, mean - half, mean + half, n, error * math.sqrt(n), shared)


def best_first(curves: Sequence[Sensitivity]) -> list[Sensitivity]:
    """The curves, widest good range first."""
    return sorted(curves, key=lambda curve: curve.good.octaves.mean, reverse=True)


def _with_bootstrap(value: float, rows: Array, of_means: Callable[[Array], Array]) -> Estimate:
    """`value` with the bootstrap's standard error of `of_means` over the rows [n, settings], and a t interval."""
    n = len(rows)
    if n < 2:
        return estimate_with_error(value, math.nan, n)
    # A generator of its own: the draws do not depend on what else is in the report.
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS) / n
    error = float(of_means(drawn @ rows).std()) * math.sqrt(n / (n - 1))
    return estimate_with_error(value, error, n)

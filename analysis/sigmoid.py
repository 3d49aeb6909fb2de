"""Asymptote and efficiency told apart: a sigmoid of accuracy over training compute for every method.

    R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B)

R0 is the measured accuracy of the starting policies; the asymptote A, the midpoint C_mid (the compute of half of the
gain) and the exponent B are fitted to the mean curve over seeds (ScaleRL, arXiv:2510.13786, Eq. 1). A high asymptote
says how far a method gets, a small midpoint how little compute it takes; two methods may differ in one and not in the
other.

Intervals are percentiles of a bootstrap over seeds, its deviations widened as Student's t widens those of a mean: few
seeds drawn again scatter far too little. A curve that has not bent says nothing of its asymptote, whatever
numbers a fit returns: such fits are refused, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cppo_lab.analysis import statistics
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import ACCURACY, Array
from cppo_lab.analysis.spent import AXES, SpentAxis, with_spent

LEAST_EVALUATIONS = 8
"""Evaluations after the start that a fit of three parameters needs."""
LEAST_RUNS = 3
LATE = 2 / 3
"""The late part of a curve begins at this share of its compute."""
FLATTER = 0.75
"""A curve has bent where its late gain per compute is below this share of the gain before, significantly."""
LEAST_REACHED = 0.8
"""The share of the fitted gain that a curve must have made by its end. The rest is extrapolation, which rests on the
sigmoid being the right curve."""
LEAST_OF_MOST = 2 / 3
"""The same share of the gain at the upper end of the asymptote's interval."""
DRAWS = 400
_LEVEL = 0.05
# Of the bootstrap at once: an array of draws x grid x evaluations.
_CHUNK = 50


@dataclass(frozen=True)
class Sigmoid:
    """The curve; `start` and `asymptote` are accuracies in 0..1, `midpoint` is in the units of the compute."""

    start: float
    asymptote: float
    midpoint: float
    exponent: float

    def at(self, compute: Array) -> Array:
        """Accuracy [E] at a positive compute [E]."""
        return self.start + (self.asymptote - self.start) * _shape(compute, self.midpoint, self.exponent)

    def reached(self, compute: float) -> float:
        """The share of the gain that is made by `compute`."""
        return float(_shape(np.array([compute]), self.midpoint, self.exponent)[0])


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted curve. compute [E] and accuracy [E] are the means that it was fitted to, `draws` [D, 3] the asymptote,
    midpoint and exponent of each bootstrap sample; equal `seeds` mean that the samples of two fits are paired.
    """

    sigmoid: Sigmoid
    compute: Array
    accuracy: Array
    draws: Array
    seeds: tuple[str, ...]

    def interval(self, place: int) -> tuple[float, float]:
        """The 95% interval of the asymptote (0), midpoint (1) or exponent (2)."""
        return _percentiles(self.draws[:, place])

    @property
    def reached(self) -> float:
        """The share of its gain that the method has made by its last evaluation."""
        return self.sigmoid.reached(float(self.compute[-1]))

    def higher(self, baseline: Fit) -> tuple[float, float, float] | None:
        """Asymptote minus the baseline's, with its interval; None unless both have the same seeds."""
        if self.seeds != baseline.seeds:
            return None
        low, high = _percentiles(self.draws[:, 0] - baseline.draws[:, 0])
        return self.sigmoid.asymptote - baseline.sigmoid.asymptote, low, high

    def slower(self, baseline: Fit) -> tuple[float, float, float] | None:
        """Midpoint over the baseline's, with its interval: above 1 takes more compute. None as above."""
        if self.seeds != baseline.seeds:
            return None
        low, high = _percentiles(self.draws[:, 1] / baseline.draws[:, 1])
        return self.sigmoid.midpoint / baseline.sigmoid.midpoint, low, high


@dataclass(frozen=True)
class Refused:
    """Why a curve is not fitted. too_short: it has too few evaluations or runs to say anything of its shape."""

    reason: str
    too_short: bool = False


def fit(compute: Array, accuracy: Array, start: Array, seeds: tuple[str, ...] = ()) -> Fit | Refused:
    """The sigmoid of `accuracy` [n, E] over `compute` [n, E] after `start` [n], over n runs; or why there is none.

    The draws are the same for every curve of n runs, so that methods with the same seeds are compared in pairs.
    """
    n, evaluations = accuracy.shape
    if evaluations < LEAST_EVALUATIONS:
        return Refused(f"it has {evaluations} evaluations, and needs {LEAST_EVALUATIONS}", too_short=True)
    if n < LEAST_RUNS:
        return Refused(f"it has {n} finished runs, and needs {LEAST_RUNS} for an interval", too_short=True)
    x, curve = compute.mean(axis=0), accuracy.mean(axis=0)
    unbent = _unbent(x, accuracy, start)
    if unbent:
        return Refused(unbent)
    resampled = _resampled(np.column_stack([start, accuracy]))
    starts, curves = resampled[:, 0], resampled[:, 1:]
    found = np.concatenate(list(_fitted(x, curves, starts)))
    made = Fit(Sigmoid(float(starts[0]), *map(float, found[0])), x, curve, found[1:], seeds)
    gain, most = made.sigmoid.at(x)[-1] - starts[0], made.interval(0)[1] - starts[0]
    if made.reached < LEAST_REACHED:
        return Refused(f"it has made only {made.reached:.0%} of the gain to its fitted asymptote")
    if gain < LEAST_OF_MOST * most:
        return Refused(
            f"its asymptote has no useful bound: the interval reaches up to {made.interval(0)[1]:.0%}, and the curve "
            f"ends at {curve[-1]:.0%}"
        )
    return made


def fits(study: Study) -> tuple[SpentAxis, dict[str, Fit | Refused]]:
    """The fit of every group over training FLOPs, or over tokens where a run lacks what FLOPs take; by label."""
    axis = next(
        (AXES[key] for key in ("flops", "tokens") if AXES[key].cumulative(study).notna().all()), AXES["steps"]
    )
    found = with_spent(study, axis)
    return axis, {group.label: _of_group(found, axis, group.label) for group in study.grouping.groups}


def worth_showing(found: Mapping[str, Fit | Refused]) -> bool:
    """Whether any curve is long enough to ask for its shape."""
    return not all(isinstance(each, Refused) and each.too_short for each in found.values())


def _of_group(study: Study, axis: SpentAxis, label: str) -> Fit | Refused:
    """The fit of a group over its finished runs."""
    runs = study.runs[(study.runs["group"] == label) & (study.runs["status"] == "FINISHED")]
    runs = runs.sort_values(["seeds", "policy"])
    metrics = study.metrics[study.metrics["run_id"].isin(runs.index)]
    if ACCURACY not in metrics or metrics.empty:
        return Refused("no run has finished", too_short=True)
    metrics = metrics.dropna(subset=[ACCURACY])
    accuracy, spent = (
        metrics.pivot(index="run_id", columns="step", values=name).reindex(runs.index).astype(float)
        for name in (ACCURACY, axis.metric)
    )
    # The start is at step 0.
    steps = [step for step in accuracy if step != 0 and accuracy[step].notna().all()]
    if 0 not in accuracy or accuracy[0].isna().any() or spent[steps].isna().to_numpy().any():
        return Refused(f"a run lacks the accuracy of its start, or {axis.reads}", too_short=True)
    seeds = tuple(f"{seeds} {policy}" for seeds, policy in zip(runs["seeds"], runs["policy"], strict=True))
    return fit(spent[steps].to_numpy(), accuracy[steps].to_numpy(), accuracy[0].to_numpy(), seeds)


def _unbent(x: Array, accuracy: Array, start: Array) -> str:
    """Why a curve cannot be followed to an asymptote; empty if it can.

    Each run's gain per compute late in training is compared with that before, by Student's t over runs.
    """
    place = int(np.searchsorted(x, LATE * x[-1]))
    place = min(max(place, 1), len(x) - 2)
    early = (accuracy[:, place] - start) / x[place]
    late = (accuracy[:, -1] - accuracy[:, place]) / (x[-1] - x[place])
    if early.mean() <= 0 or _p(early) > _LEVEL:
        return "it does not rise significantly"
    if late.mean() < 0 and _p(late) < _LEVEL:
        return "it falls at its end"
    if late.mean() > FLATTER * early.mean() or _p(early - late) > _LEVEL:
        return (
            f"it has not bent: late in training it gains {late.mean() / early.mean():.0%} of what it gained before per "
            "unit of compute"
        )
    return ""


def _resampled(values: Array) -> Array:
    """The mean of `values` [n, E] over runs, followed by those of DRAWS bootstrap samples: [1 + DRAWS, E]."""
    n = len(values)
    rows = np.random.default_rng(0).integers(0, n, size=(DRAWS, n))
    mean = values.mean(axis=0)
    widened = math.sqrt(n / (n - 1)) * float(stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975))
    return np.concatenate([[mean], mean + widened * (values[rows].mean(axis=1) - mean)])


def _p(values: Array) -> float:
    return statistics.t_p(float(values.mean()), float(values.std(ddof=1)), len(values))


def _shape(compute: Array, midpoint: float | Array, exponent: float | Array) -> Array:
    """The share of the gain made by each compute; between 0 and 1."""
    return np.asarray(1 / (1 + (midpoint / compute) ** exponent), dtype=np.float64)


def _fitted(x: Array, curves: Array, starts: Array) -> Iterator[Array]:
    """Least-squares asymptote, midpoint and exponent [d, 3] of curves [D, E] with starts [D], in chunks.

    With midpoint and exponent given, the asymptote follows in closed form: the other two are searched on a grid that is
    refined around the best point, which no local minimum can stop.
    """
    midpoints = np.geomspace(x[0] / 4, 16 * x[-1], 81)
    exponents = np.geomspace(0.3, 10.0, 41)
    steps = np.log(midpoints[1] / midpoints[0]), np.log(exponents[1] / exponents[0])
    coarse = np.stack(np.meshgrid(midpoints, exponents, indexing="ij"), axis=-1).reshape(1, -1, 2)
    for begin in range(0, len(curves), _CHUNK):
        gains, starting = (
            curves[begin : begin + _CHUNK] - starts[begin : begin + _CHUNK, None],
            starts[begin : begin + _CHUNK],
        )
        best, asymptote = _best_of(x, gains, starting, coarse)
        for scale in (1 / 4, 1 / 16, 1 / 64, 1 / 256):
            offsets = np.arange(-4, 5) * scale
            around = np.stack(np.meshgrid(steps[0] * offsets, steps[1] * offsets, indexing="ij"), axis=-1)
            best, asymptote = _best_of(
                x, gains, starting, best[:, None, :] * np.exp(around.reshape(1, -1, 2))
            )
        yield np.column_stack([asymptote, best])


def _best_of(x: Array, gains: Array, starts: Array, grid: Array) -> tuple[Array, Array]:
    """The best (midpoint, exponent) [d, 2] of `grid` [1 or d, G, 2] for gains [d, E], and the asymptotes [d]."""
    shapes = _shape(x, grid[..., 0, None], grid[..., 1, None])
    squares = (shapes**2).sum(-1)
    products = np.einsum("de,dge->dg", gains, np.broadcast_to(shapes, (len(gains), *shapes.shape[1:])))
    # An accuracy is at most 1.
    height = np.clip(products / squares, 0.0, 1.0 - starts[:, None])
    place = np.argmin(height**2 * squares - 2 * height * products, axis=1)
    rows = np.arange(len(gains))
    return np.broadcast_to(grid, (len(gains), *grid.shape[1:]))[rows, place], starts + height[rows, place]


def _percentiles(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return (float(low), float(high)) if math.isfinite(low) else (math.nan, math.nan)

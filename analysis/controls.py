"""The control that every verdict needs: no rule at a smaller step.

A trust region makes a step smaller, and so does a smaller learning rate. What a method is worth beyond that is its
difference from plain policy gradient

- at its best: both at the setting that is best for each, chosen by other seeds than those compared;
- at the same KL: plain policy gradient at the learning rate that moves the policy as far per rollout, as the median k3
  estimate measures it, averaged over seeds; its final accuracy is interpolated in log KL, seed by seed;
- with fewer epochs: plain policy gradient at its best with fewer passes over each rollout, where such runs exist.

A method is credited only with what it adds to the best of these controls. Plain policy gradient is found by its
coordinates: no trust region, no gate, nothing that bends the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cppo_lab.analysis.contrasts import Contrast, Pair, adjusted, compare
from cppo_lab.analysis.cross_fitting import Candidate, CrossFit, cross_fitted
from cppo_lab.analysis.good_range import estimate_with_error, runs_of
from cppo_lab.analysis.grids import EPOCHS, RATE, Grid, shared_pairs
from cppo_lab.analysis.run_table import Array
from cppo_lab.analysis.statistics import Estimate

AT_BEST, SAME_KL, FEWER_EPOCHS = "at_best", "same_kl", "fewer_epochs"
LEAST_KNOWN = 0.5
"""The share of comparisons in which plain policy gradient must have reached a method's KL."""


@dataclass(frozen=True)
class Control:
    """One method in one panel against plain policy gradient.

    at_one: at `rate`, the largest learning rate that both were tried at, as a comparison at one rate for all would be.
    controls: the differences by name, adjusted together for all methods and controls of the panel. why_not: the reason
    where a control cannot be computed. point and baseline_point: the best settings over all seeds, in words; matched:
    the learning rate at which plain policy gradient moves the policy as far as the method at its best, NaN where none
    does.
    """

    panel: str
    method: str
    baseline: str
    rate: float
    at_one: Contrast | None
    controls: dict[str, Contrast]
    why_not: dict[str, str]
    point: str
    baseline_point: str
    matched: float = math.nan

    @property
    def larger(self) -> str | None:
        """The control that leaves least; None without any."""
        seen = {name: each.estimate.mean for name, each in self.controls.items() if each.estimate}
        return min(seen, key=lambda name: seen[name]) if seen else None

    @property
    def credited(self) -> Estimate | None:
        """The difference from the larger control."""
        return self.controls[self.larger].estimate if self.larger else None

    @property
    def verdict(self) -> str:
        """`higher` where the method is above every control, `lower` where it is below one of them."""
        known = [each for each in self.controls.values() if each.estimate]
        if known and all(each.verdict == "higher" for each in known):
            return "higher"
        return "lower" if any(each.verdict == "lower" for each in known) else "inconclusive"


def find_controls(found: Sequence[Grid], no_rule: Collection[str]) -> list[Control]:
    """Every method of every panel that has plain policy gradient on a grid of learning rates.

    no_rule: the names of the methods without a rule.
    """
    made: list[Control] = []
    for panel in dict.fromkeys(grid.panel for grid in found):
        here = [grid for grid in found if grid.panel == panel]
        baseline = next((grid for grid in here if grid.method in no_rule and RATE in grid.axes), None)
        if baseline is None:
            continue
        fewer = [grid for grid in found if has_fewer_epochs(grid, baseline)]
        of_panel = [_control(grid, baseline, fewer) for grid in here if grid.method not in no_rule]
        made += adjusted_controls(of_panel)
    return made


def at_best(treatment: Grid, baseline: Grid) -> Contrast:
    """Final accuracies, each at the setting that is best for it by other seeds than those compared."""
    pairs = shared_pairs(treatment, baseline)
    first, second = treatment.on(pairs), baseline.on(pairs)
    candidates = [
        (weight, Candidate.by_its_score(grid.values("final"))) for weight, grid in ((1, first), (-1, second))
    ]
    return _contrast(first, second, cross_fitted(candidates) if pairs else None)


def same_kl(treatment: Grid, baseline: Grid) -> tuple[Contrast, str]:
    """The final accuracy of `treatment` at its best, minus that of `baseline` where it moves the policy as far.

    The two are matched by KL averaged over seeds, and compared seed by seed: matched within seeds, the noise of each
    run's KL would move it off the top of the baseline's curve, and the method would be credited with that. Without an
    estimate, and with the reason, where less than LEAST_KNOWN of the comparisons are within the KL that the baseline
    reached; with a remark where some are not.
    """
    pairs = shared_pairs(treatment, baseline)
    first, second = treatment.on(pairs), baseline.on(pairs)
    if not pairs:
        return _contrast(first, second, None), "no run shares its seeds and starting policy"
    finals, moved, kl = first.values("final"), mean_kl(first), mean_kl(second)
    reached = np.array([interpolated(moved, kl, its_finals) for its_finals in second.values("final")])
    fit = cross_fitted([(1.0, Candidate(finals, finals - reached))])
    if fit.known < LEAST_KNOWN:
        return _contrast(first, second, None), _beyond(moved[_best(first)], kl) or "too few seeds"
    partly = f"in {100 * fit.known:.0f}% of the comparisons; in the others it moves beyond the rates tried"
    # The choice of the baseline's own setting has no part in it: it is judged at the KL of the treatment.
    made = _contrast(first, second, fit, _choice_of(first))
    return made, "" if fit.known == 1 else partly


def matched_rate(treatment: Grid, baseline: Grid) -> float:
    """The learning rate at which `baseline` moves the policy as far as `treatment` at its best; NaN where none does,
    where the baseline was tried on other axes as well, or where no seed has all of its rates.
    """
    if baseline.axes != (RATE,) or not baseline.n:
        return math.nan
    at = mean_kl(treatment)[[_best(treatment)]]
    return float(np.exp(interpolated(at, mean_kl(baseline), np.log(baseline.points[:, 0]))[0]))


def mean_kl(grid: Grid) -> Array:
    """The median KL per step at every setting, its geometric mean over seeds, [settings]."""
    known = np.where(grid.values("kl_median") > 0, grid.values("kl_median"), math.nan)
    counts = np.isfinite(known).sum(axis=0)
    sums = np.nansum(np.log(known), axis=0)
    return np.exp(np.divide(sums, counts, out=np.full(sums.shape, math.nan), where=counts > 0))


def interpolated(at: Array, kl: Array, finals: Array) -> Array:
    """Final accuracy at KL `at` [m], with straight lines in log KL between runs with `kl` [k] and `finals` [k].

    NaN below the least and above the largest KL of the runs, and where a KL is not positive.
    """
    known = np.isfinite(kl) & (kl > 0) & np.isfinite(finals)
    order = np.argsort(kl[known], kind="stable")
    x, y = np.log(kl[known][order]), finals[known][order]
    wanted = np.log(np.where(at > 0, at, math.nan))
    if not len(x):
        return np.full(at.shape, math.nan)
    return np.asarray(np.interp(wanted, x, y, left=math.nan, right=math.nan), dtype=np.float64)


def fewer_epochs(treatment: Grid, baselines: Sequence[Grid]) -> Contrast:
    """Final accuracies, each at its best; that of the baseline over all its settings with fewer epochs."""
    pairs = shared_pairs(treatment, *baselines)
    first = treatment.on(pairs)
    seconds = [grid.on(pairs) for grid in baselines]
    if not pairs:
        return _contrast(first, seconds[0], None)
    score = np.concatenate([grid.values("final") for grid in seconds], axis=1)
    fit = cross_fitted(
        [(1.0, Candidate.by_its_score(first.values("final"))), (-1.0, Candidate.by_its_score(score))]
    )
    return _contrast(first, seconds[0], fit, _choice_of(first) ^ _choice_of(seconds[0]))


def _control(grid: Grid, baseline: Grid, fewer: Sequence[Grid]) -> Control:
    matched, remark = same_kl(grid, baseline)
    controls = {AT_BEST: at_best(grid, baseline)}
    why_not = {}
    if matched.estimate is not None:
        controls[SAME_KL] = matched
    if remark:
        why_not[SAME_KL] = remark
    if fewer:
        controls[FEWER_EPOCHS] = fewer_epochs(grid, fewer)
    rate, at_one = _at_one_rate(grid, baseline)
    return Control(
        panel=grid.panel,
        method=grid.method,
        baseline=baseline.method,
        rate=rate,
        at_one=at_one,
        controls=controls,
        why_not=why_not,
        point=_best_in_words(grid),
        baseline_point=_best_in_words(baseline),
        matched=matched_rate(grid, baseline),
    )


def adjusted_controls(made: Sequence[Control]) -> list[Control]:
    """The controls of one panel with p values adjusted for all its methods and controls (Holm)."""
    rest = iter(adjusted([each for control in made for each in control.controls.values()]))
    return [replace(control, controls={name: next(rest) for name in control.controls}) for control in made]


def _choice_of(grid: Grid) -> frozenset[tuple[str, float]]:
    """The tuned points of its runs."""
    return frozenset[tuple[str, float]]().union(*(run.choice for row in grid.runs for run in row))


def _contrast(
    treatment: Grid, baseline: Grid, fit: CrossFit | None, choice: frozenset[tuple[str, float]] = frozenset()
) -> Contrast:
    names = (treatment.method, baseline.method)
    if fit is None or not math.isfinite(fit.mean):
        return Contrast(*names, (), None)
    errors = np.hypot(*(grid.values("final_error").mean(axis=1) for grid in (treatment, baseline)))
    pairs = tuple(
        Pair(float(value), float(error), runs_of(treatment, row) | runs_of(baseline, row))
        for row, (value, error) in enumerate(zip(fit.per_seed, errors, strict=True))
        if math.isfinite(value)
    )
    # Never less than the evaluations alone must cause.
    least = float(np.sqrt(np.nanmean(errors**2) / len(pairs))) if np.isfinite(errors).any() else 0.0
    error = max(fit.error, least) if math.isfinite(fit.error) else fit.error
    seen = estimate_with_error(fit.mean, error, len(pairs), math.hypot(*(each for _, each in choice)))
    made = Contrast(*names, pairs, seen)
    return replace(made, p_adjusted=made.p)


def _at_one_rate(grid: Grid, baseline: Grid) -> tuple[float, Contrast | None]:
    """The largest learning rate of both, and the plain contrast there: at the best of a method's other settings."""
    if RATE not in grid.axes:
        return math.nan, None
    place = grid.axes.index(RATE), baseline.axes.index(RATE)
    both = set(grid.points[:, place[0]]) & set(baseline.points[:, place[1]])
    if not both:
        return math.nan, None
    rate = max(both)
    sides = []
    for each, axis in zip((grid, baseline), place, strict=True):
        columns = np.flatnonzero(each.points[:, axis] == rate)
        best = columns[int(np.argmax(each.values("final").mean(axis=0)[columns]))]
        sides.append([row[best] for row in each.runs])
    return float(rate), compare(sides[0], sides[1], (grid.method, baseline.method))


def _best(grid: Grid) -> int:
    return int(np.argmax(grid.values("final").mean(axis=0)))


def _best_in_words(grid: Grid) -> str:
    """The best setting over all seeds, and whether its learning rate is at an end of what was tried."""
    best = _best(grid)
    rates = grid.points[:, grid.axes.index(RATE)] if RATE in grid.axes else np.array([])
    ends = {"smallest": rates.min(), "largest": rates.max()} if len(set(rates)) > 1 else {}
    at = next((f", the {name} rate tried" for name, end in ends.items() if rates[best] == end), "")
    return f"{grid.point(best)}{at}"


def _beyond(moved: float, kl: Array) -> str:
    """Where a method's KL lies outside that of the baseline [settings], in words."""
    if moved < np.nanmin(kl):
        return "moves less than any rate tried"
    return "moves more than any rate tried" if moved > np.nanmax(kl) else ""


def has_fewer_epochs(grid: Grid, baseline: Grid) -> bool:
    """Whether a grid is the baseline's with fewer epochs and nothing else changed."""
    mine, its = dict(grid.elsewhere), dict(baseline.elsewhere)
    epochs = its.pop(EPOCHS, None), mine.pop(EPOCHS, None)
    return None not in epochs and mine == its and float(str(epochs[1])) < float(str(epochs[0]))

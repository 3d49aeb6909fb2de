"""What a claim of a sweep's file can be about besides a score: how a method does at its best, and how wide its good
range
is (`measure:` of a claim).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cppo_lab.analysis.claims import CREDITED, GOOD_RANGE, Claim, Planned
from cppo_lab.analysis.contrasts import Contrast
from cppo_lab.analysis.controls import (
    AT_BEST,
    FEWER_EPOCHS,
    SAME_KL,
    at_best,
    fewer_epochs,
    has_fewer_epochs,
    same_kl,
)
from cppo_lab.analysis.good_range import range_contrast, sensitivity
from cppo_lab.analysis.grids import Grid, grids, method_of, panel_less, tuning_axes
from cppo_lab.analysis.run_table import Run, RunTable
from cppo_lab.analysis.tuned_controls import tuned_contrasts, tuned_grids, tuned_panel

_TOO_FEW = "too few seeds to choose settings by other ones"


@dataclass(frozen=True)
class Measured:
    """A measure in one panel: the contrasts that must all speak for a claim, and the number of seeds planned.

    at_least: the true difference may be larger than measured, at_most: smaller, since a range reaches the end of what
    was tried. remark: why there is no number, or what it leaves out.
    """

    panel: str
    contrasts: tuple[Contrast, ...]
    planned: int
    at_least: bool = False
    at_most: bool = False
    remark: str = ""


def measured(claim: Claim, planned: Sequence[Planned], runs: Sequence[Run]) -> list[Measured]:
    """The claim's measure in every panel in which the sweep plans both methods on an axis to tune."""
    if claim.measure != GOOD_RANGE and any(run.is_tuned for run in planned):
        return _at_tuned_points(claim, planned, runs)
    tuned = (claim.axis,) if claim.axis else tuning_axes(planned)
    members: dict[str, list[Planned]] = {}
    for run in planned:
        if any(axis in run.axes for axis in tuned):
            members.setdefault(panel_less(run, tuned), []).append(run)
    counts = {panel: _planned_seeds(claim, its_runs) for panel, its_runs in members.items()}
    found = grids(RunTable(tuple(runs)), tuned)
    made = []
    for panel, count in counts.items():
        if count:
            one, other = (
                next((grid for grid in found if (grid.panel, grid.method) == (panel, method)), None)
                for method in (claim.treatment, claim.baseline)
            )
            if one is None or other is None:
                nothing = Contrast(claim.treatment, claim.baseline, (), None)
                made.append(Measured(panel, (nothing,), count))
            else:
                fewer = [grid for grid in found if has_fewer_epochs(grid, other)]
                made.append(replace(_measure(claim, one, other, fewer), planned=count))
    return made


def _at_tuned_points(claim: Claim, planned: Sequence[Planned], runs: Sequence[Run]) -> list[Measured]:
    """The claim's measure in every panel in which the sweep plans both methods at their tuned points."""
    members: dict[str, list[Planned]] = {}
    for run in planned:
        if run.is_tuned:
            members.setdefault(tuned_panel(run), []).append(run)
    found = tuned_grids(runs)
    made = []
    for panel, its_runs in members.items():
        count = _planned_seeds(claim, its_runs)
        one, other = (
            next((each for each in found if (each.best.panel, each.best.method) == (panel, method)), None)
            for method in (claim.treatment, claim.baseline)
        )
        contrasts: Mapping[str, Contrast] = {}
        remark = ""
        if one is not None and other is not None:
            fewer = [each.best for each in found if has_fewer_epochs(each.best, other.best)]
            contrasts, remark = tuned_contrasts(one, other, fewer)
        if count:
            made.append(_of_measure(claim, panel, count, contrasts, remark))
    return made


def _of_measure(
    claim: Claim, panel: str, planned: int, contrasts: Mapping[str, Contrast], remark: str
) -> Measured:
    nothing = Contrast(claim.treatment, claim.baseline, (), None)
    if claim.measure == CREDITED:
        known = tuple(each for each in contrasts.values() if each.estimate is not None)
        return Measured(panel, known or (nothing,), planned)
    told = {SAME_KL: remark, FEWER_EPOCHS: "" if FEWER_EPOCHS in contrasts else "no runs with fewer epochs"}
    seen = contrasts.get(claim.measure or "", nothing)
    return Measured(panel, (seen,), planned, remark=told.get(claim.measure or "", ""))


def _measure(claim: Claim, one: Grid, other: Grid, fewer: Sequence[Grid]) -> Measured:
    if claim.measure == GOOD_RANGE:
        curves = sensitivity(one), sensitivity(other)
        if curves[0] is None or curves[1] is None:
            nothing = Contrast(claim.treatment, claim.baseline, (), None)
            return Measured(one.panel, (nothing,), 0, remark="too few settings have runs")
        open_ends = [curve.good.is_censored for curve in curves if curve is not None]
        said = " and ".join(curve.grid.method for curve in curves if curve and curve.good.is_censored)
        remark = f"{said} good up to the end of what was tried" if said else ""
        return Measured(one.panel, (range_contrast(one, other),), 0, open_ends[0], open_ends[1], remark)
    matched, remark = same_kl(one, other)
    made = {AT_BEST: at_best(one, other), SAME_KL: matched}
    if fewer:
        made[FEWER_EPOCHS] = fewer_epochs(one, fewer)
    if claim.measure == CREDITED:
        known = tuple(each for each in made.values() if each.estimate is not None)
        return Measured(one.panel, known or (made[AT_BEST],), 0, remark="" if known else _TOO_FEW)
    if claim.measure not in made:
        nothing = Contrast(claim.treatment, claim.baseline, (), None)
        return Measured(one.panel, (nothing,), 0, remark="no runs with fewer epochs")
    if claim.measure != SAME_KL:
        remark = "" if made[claim.measure].estimate else _TOO_FEW
    return Measured(one.panel, (made[claim.measure],), 0, remark=remark)


def _planned_seeds(claim: Claim, runs: Sequence[Planned]) -> int:
    """Seeds that the sweep plans for both methods."""
    return len(
        set.intersection(
            *(
                {run.seeds for run in runs if method_of(run) == method}
                for method in (claim.treatment, claim.baseline)
            )
        )
    )

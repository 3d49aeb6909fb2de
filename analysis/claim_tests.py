"""Claims held against what was measured, by rules that are the same in both directions.

A claim is tested twice by Student's t over pairs of runs with the same seed and starting policy, once for it and once
against it, and the p values of either kind are adjusted together (Holm) for all claims of a panel, those without runs
included.

            agrees: significantly ...        does not agree: significantly ...
above       above zero                       below MARGIN: an advantage that large is excluded
below       below zero                       above -MARGIN
equal       within MARGIN of zero            different from zero
not zero    different from zero              within MARGIN of zero

Anything else is not resolved. A verdict over fewer pairs than the sweep plans is interim. Two kinds of disagreement are
told apart: that the opposite holds (significantly on the other side of zero), and that an advantage is excluded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cppo_lab.analysis import statistics
from cppo_lab.analysis.claims import Claim
from cppo_lab.analysis.contrasts import ALPHA, POWER
from cppo_lab.analysis.load.result_files import ResultFile, Row, policy_of, score, seeds_of
from cppo_lab.analysis.run_table import evaluation_sd
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.errors import UserError

EQUALITY = {"equal": 0, "not zero": 1}
"""Which test of these expectations, for or against, is one of equality."""


@dataclass(frozen=True)
class Planned:
    """One run that a sweep plans: where its result file will have it."""

    panel: str
    method: str
    seeds: str
    axes: Mapping[str, str]


@dataclass(frozen=True)
class PValues:
    """Two-sided p values of the tests for a claim, against it, and for its opposite; NaN where nothing was measured."""

    holds: float = math.nan
    fails: float = math.nan
    opposite: float = math.nan


@dataclass(frozen=True)
class Outcome:
    """A claim in one panel: the estimate over its pairs, None without any, and its p values, alone and adjusted for
    the panel's `family` of claims. `runs` are the ids of the runs that were paired.

    Among other outcomes, `stands` is whether the verdict stays when adjusted for all of them, and `repeats` another
    one that tests the same on these runs and more: it gives the verdict.
    """

    claim: Claim
    panel: str
    estimate: Estimate | None
    planned: int
    alone: PValues
    adjusted: PValues
    runs: frozenset[str] = frozenset()
    sweep: str = ""
    family: int = 1
    stands: bool = True
    repeats: Outcome | None = None

    @property
    def is_interim(self) -> bool:
        """Whether fewer pairs were measured than the sweep plans."""
        return (self.estimate.n if self.estimate else 0) < self.planned

    @property
    def verdict(self) -> str:
        """`agrees`, `does not agree` or `not resolved`, by the rules above and the adjusted p values."""
        return self.repeats.verdict if self.repeats else _verdict(self.estimate, self.adjusted)

    @property
    def is_opposite(self) -> bool:
        """Whether the opposite of the claim holds; else a disagreement excludes an advantage of the margin."""
        if self.repeats:
            return self.repeats.is_opposite
        return self.verdict == "does not agree" and self.adjusted.opposite < ALPHA

    @property
    def needed_to_hold(self) -> float | None:
        """Pairs that would show it with probability POWER at Holm's first step, were mean and spread those seen:
        None where the mean speaks against it, infinity where they are more than can be counted.
        """
        return self._needed(0)

    @property
    def needed_to_fail(self) -> float | None:
        """Pairs that would refute it, as above."""
        return self._needed(1)

    def _needed(self, side: int) -> float | None:
        seen = self.estimate
        if seen is None or not seen.sd > 0:
            return None
        distance, level = _distances(self.claim, seen.mean)[side], 1 - ALPHA / self.family
        if distance <= 0:
            return None
        if side == EQUALITY.get(self.claim.expect):
            count = statistics.pairs_to_show_equal(seen.mean, seen.sd, self.claim.margin, POWER, level)
        else:
            count = statistics.pairs_to_resolve(distance, seen.sd, POWER, level)
        return count or math.inf


def _verdict(seen: Estimate | None, p: PValues) -> str:
    if seen is None or not seen.has_interval:
        return "not resolved"
    if p.holds < ALPHA:
        return "agrees"
    return "does not agree" if p.fails < ALPHA else "not resolved"


def _distances(claim: Claim, mean: float) -> tuple[float, float]:
    """How far the mean lies on the side that speaks for a claim, and against it; negative on the other side."""
    if claim.expect in ("above", "below"):
        signed = mean if claim.expect == "above" else -mean
        return signed, claim.margin - signed
    inside, away = claim.margin - abs(mean), abs(mean)
    return (inside, away) if claim.expect == "equal" else (away, inside)


def p_values(claim: Claim, seen: Estimate | None) -> PValues:
    """The tests of a claim, not adjusted; without a spread all NaN, and 1 on the wrong side."""
    if seen is None or not seen.has_interval:
        return PValues()
    holds, fails = _distances(claim, seen.mean)
    # What is not equal differs, to either side; what is to differ has no opposite but to be equal.
    opposite = -holds if claim.expect in ("above", "below") else fails
    return PValues(
        *(statistics.t_p(each, seen.sd, seen.n) if each > 0 else 1.0 for each in (holds, fails, opposite))
    )


def adjusted(alone: Sequence[PValues]) -> list[PValues]:
    """Every kind of test adjusted for all of its kind (Holm). A claim without runs will be tested one day: it counts,
    as one that is not significant.
    """
    kinds = np.array([[each.holds, each.fails, each.opposite] for each in alone]).T
    return [
        PValues(*map(float, each))
        for each in zip(*(statistics.holm(np.nan_to_num(p, nan=1.0)) for p in kinds), strict=True)
    ]


def outcomes(claims: Sequence[Claim], results: ResultFile, planned: Sequence[Planned]) -> list[Outcome]:
    """Every claim in every panel in which the sweep plans its runs, in the order of the claims.

    Raises UserError for a claim that no planned run has anything to do with.
    """
    found = [outcome for claim in claims for outcome in _outcomes(claim, results, planned)]
    for panel in {outcome.panel for outcome in found}:
        places = [number for number, outcome in enumerate(found) if outcome.panel == panel]
        for number, tests in zip(places, adjusted([found[number].alone for number in places]), strict=True):
            found[number] = replace(found[number], adjusted=tests, family=len(places), sweep=results.name)
    return found


def together(found: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of all sweeps, each with whether its verdict stands among them and which other one it repeats."""
    repeated = [_repeated(outcome, found[:place], found[place + 1 :]) for place, outcome in enumerate(found)]
    tested = [outcome for outcome, other in zip(found, repeated, strict=True) if other is None]
    for_all = adjusted([outcome.alone for outcome in tested])
    judged = {
        id(outcome): replace(outcome, stands=_verdict(outcome.estimate, p) == outcome.verdict)
        for outcome, p in zip(tested, for_all, strict=True)
    }
    return [
        judged[id(outcome)] if other is None else replace(outcome, repeats=judged[id(other)])
        for outcome, other in zip(found, repeated, strict=True)
    ]


def _repeated(outcome: Outcome, before: Sequence[Outcome], after: Sequence[Outcome]) -> Outcome | None:
    """The outcome on most runs that tests the same on all runs of this one; of those on the same runs, the first."""
    same = [
        other
        for other in (*before, *after)
        if _question(other) == _question(outcome) and outcome.runs and outcome.runs <= other.runs
    ]
    most = max(same, key=lambda other: len(other.runs), default=None)
    if most is None or (most.runs == outcome.runs and not any(most is other for other in before)):
        return None
    return most


def _question(outcome: Outcome) -> tuple[object, ...]:
    claim = outcome.claim
    return claim.treatment, claim.baseline, claim.score, claim.expect, claim.than, claim.between


def difference(results: ResultFile, panel: str, treatment: str, baseline: str) -> Estimate | None:
    """Final accuracy of one method less that of another in `panel`, over pairs; None where there are none."""
    claim = Claim("", treatment, baseline, "final", "not zero", 0.0, {}, None, False)
    rows = [row for row in results.rows if row["panel"] == panel]
    return _outcome(claim, panel, list(_pairs(claim, rows).values()), 0).estimate


def answerable(claim: Claim, planned: Sequence[Planned]) -> bool:
    """Whether the sweep plans runs for it."""
    try:
        return bool(_outcomes(claim, ResultFile("", (), ()), planned))
    except UserError:
        return False


def _outcomes(claim: Claim, results: ResultFile, planned: Sequence[Planned]) -> list[Outcome]:
    there = [run for run in planned if all(run.axes.get(axis) in wanted for axis, wanted in claim.at.items())]
    rows = [row for row in results.rows if all(row.get(axis) in wanted for axis, wanted in claim.at.items())]
    if claim.between is not None:
        axis, first, second = claim.between
        sides = [[run for run in there if run.axes.get(axis) == value] for value in (first, second)]
        counts = [_planned_pairs(claim, side) for side in sides]
        if not all(counts):
            raise _nothing(claim)
        one, other = (
            {
                seeds: pair
                for (seeds, _), pair in _pairs(claim, [row for row in rows if row.get(axis) == value]).items()
            }
            for value in (first, second)
        )
        both = [one[seeds].less(other[seeds]) for seeds in one if seeds in other]
        return [_outcome(claim, f"{axis}: {first} against {second}", both, min(counts))]
    panels = {
        panel: _planned_pairs(claim, [run for run in there if run.panel == panel])
        for panel in dict.fromkeys(run.panel for run in there)
    }
    if not any(panels.values()):
        raise _nothing(claim)
    return [
        _outcome(
            claim, panel, list(_pairs(claim, [row for row in rows if row["panel"] == panel]).values()), count
        )
        for panel, count in panels.items()
        if count
    ]


def _nothing(claim: Claim) -> UserError:
    contrast = f"{claim.treatment} - {claim.baseline}" if claim.baseline else claim.treatment
    return UserError(f"claims: '{claim.says}': the sweep plans no runs for {contrast} as it names them.")


def _planned_pairs(claim: Claim, runs: Sequence[Planned]) -> int:
    seeds = [
        {run.seeds for run in runs if run.method == method}
        for method in (claim.treatment, claim.baseline)
        if method is not None
    ]
    return len(set.intersection(*seeds))


@dataclass(frozen=True)
class _Pair:
    """One value of a contrast, the evaluation error of it (NaN where none is known), and the runs it is of."""

    value: float
    error: float
    runs: frozenset[str]

    def less(self, other: _Pair) -> _Pair:
        return _Pair(self.value - other.value, math.hypot(self.error, other.error), self.runs | other.runs)


def _outcome(claim: Claim, panel: str, pairs: Sequence[_Pair], planned: int) -> Outcome:
    seen = None
    if pairs:
        contrasts = np.array([pair.value for pair in pairs])
        seen = statistics.t_interval(contrasts, least_sd=evaluation_sd([pair.error for pair in pairs]))
    alone = p_values(claim, seen)
    runs = frozenset[str]().union(*(pair.runs for pair in pairs))
    return Outcome(claim, panel, seen, planned, alone, alone, runs)


def _pairs(claim: Claim, rows: Sequence[Row]) -> dict[tuple[str, str], _Pair]:
    """The contrast of every pair of runs, by seeds and starting policy."""
    found = _of_method(claim, rows, claim.treatment)
    if claim.baseline is not None:
        other = _of_method(claim, rows, claim.baseline)
        found = {key: pair.less(other[key]) for key, pair in found.items() if key in other}
    return {
        key: replace(pair, value=pair.value - claim.than)
        for key, pair in found.items()
        if math.isfinite(pair.value)
    }


def _of_method(claim: Claim, rows: Sequence[Row], method: str) -> dict[tuple[str, str], _Pair]:
    found: dict[tuple[str, str], _Pair] = {}
    for row in rows:
        if row["method"] != method:
            continue
        key = seeds_of(row), policy_of(row)
        pair = _Pair(_score(row, claim.score), _error(claim, row), frozenset([row["run_id"]]))
        if key in found:
            raise UserError(
                f"{method} at {key[0]}: two runs ({', '.join(sorted(found[key].runs | pair.runs))}); one result file "
                "holds one run of a method for each seed and starting policy."
            )
        found[key] = pair
    return found


def _error(claim: Claim, row: Row) -> float:
    return score(row, "final_error") if claim.score == "final" else math.nan


def _score(row: Row, name: str) -> float:
    if name == "deviation_early_minus_late":
        early, late = score(row, "deviation_early"), score(row, "deviation_late")
        return (early - late) / ((early + late) / 2) if early + late > 0 else math.nan
    if name == "budget_start_minus_end":
        values = [float(part.split(":")[1]) for part in row.get("budget", "").split()]
        return values[0] - values[-1] if values else math.nan
    return score(row, name)

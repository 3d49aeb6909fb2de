"""Claims tested on the run table, by rules that are the same in both directions.

A claim is tested twice by Student's t over paired runs, once for it and once against it, and the p values of either
kind are adjusted together (Holm) for all claims of a panel, those without runs included.

            holds: significantly ...         does not hold: significantly ...
above       above zero                       below MARGIN: an advantage that large is excluded
below       below zero                       above -MARGIN
equal       within MARGIN of zero            different from zero
not zero    different from zero              within MARGIN of zero

Anything else is inconclusive. A verdict over fewer pairs than the sweep plans is interim. A claim that does not hold
is either contradicted (the opposite is significant) or has its advantage excluded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cppo_lab.analysis.claims import Claim, Planned
from cppo_lab.analysis.contrasts import (
    ALPHA,
    Contrast,
    Pair,
    contrast,
    holm,
    is_beyond_test_seeds,
    p_beyond,
    pair_up,
    seeds_to_detect,
    seeds_to_show_equal,
)
from cppo_lab.analysis.measures import Measured, measured
from cppo_lab.analysis.run_table import Run, RunTable
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.errors import UserError

HOLDS, FAILS, INCONCLUSIVE = "holds", "does not hold", "inconclusive"
EQUALITY = {"equal": 0, "not zero": 1}
"""Which test of these expectations, for or against, is one of equality."""


class PValues(NamedTuple):
    """Two-sided p values of the tests for a claim, against it, and for its opposite; NaN where nothing was measured."""

    holds: float = math.nan
    fails: float = math.nan
    opposite: float = math.nan


@dataclass(frozen=True)
class ClaimTest:
    """A claim in one panel: the contrast over its pairs, and its p values, alone and adjusted for the panel's `family`
    of claims.

    Among the tests of several sweeps, `stands` is whether the verdict stays when adjusted for all of them, and
    `repeats` another test of the same question on these runs and more: that one gives the verdict. `remark` is what its
    number leaves out, or why there is none.
    """

    claim: Claim
    panel: str
    contrast: Contrast
    planned: int
    alone: PValues
    adjusted: PValues
    sweep: str = ""
    family: int = 1
    stands: bool = True
    repeats: ClaimTest | None = None
    remark: str = ""

    @property
    def estimate(self) -> Estimate | None:
        return self.contrast.estimate

    @property
    def is_interim(self) -> bool:
        """Whether fewer pairs were measured than the sweep plans."""
        return self.contrast.n < self.planned

    @property
    def verdict(self) -> str:
        """HOLDS, FAILS or INCONCLUSIVE, by the rules above and the adjusted p values."""
        return self.repeats.verdict if self.repeats else _verdict(self.estimate, self.adjusted)

    @property
    def is_opposite(self) -> bool:
        """Whether the opposite of the claim holds; a claim that fails otherwise has its advantage excluded."""
        if self.repeats:
            return self.repeats.is_opposite
        return self.verdict == FAILS and self.adjusted.opposite < ALPHA

    @property
    def p_different(self) -> float:
        """Adjusted two-sided p of a difference from zero, whichever way the claim expects it."""
        p = self.adjusted
        if self.claim.expect in EQUALITY:
            return p.fails if self.claim.expect == "equal" else p.holds
        return min(p.holds, p.opposite)

    @property
    def needed_to_hold(self) -> float | None:
        """Pairs that would show it with probability POWER, were mean and spread those seen: None where the mean speaks
        against it, infinity where they are more than can be counted.
        """
        return self._needed(0)

    @property
    def needed_to_fail(self) -> float | None:
        """Pairs that would refute it, as above."""
        return self._needed(1)

    def _needed(self, side: int) -> float | None:
        if self.estimate is None:
            return None
        if side == EQUALITY.get(self.claim.expect):
            return seeds_to_show_equal(self.estimate, self.claim.margin, self.family)
        return seeds_to_detect(self.estimate, _distances(self.claim, self.estimate.mean)[side], self.family)

    def needs_tuning(self, to_hold: bool) -> bool:
        """Whether no number of test seeds would show it, or refute it: the error of tuned points alone is too large."""
        if self.estimate is None:
            return False
        distance = _distances(self.claim, self.estimate.mean)[0 if to_hold else 1]
        return is_beyond_test_seeds(self.estimate, distance, self.family)


def check_claims(
    claims: Sequence[Claim], table: RunTable, planned: Sequence[Planned], sweep: str = ""
) -> list[ClaimTest]:
    """Every claim in every panel in which the sweep plans its runs, in the order of the claims.

    Raises UserError for a claim that no planned run has anything to do with.
    """
    found = [test for claim in claims for test in _in_panels(claim, table, planned)]
    for panel in {test.panel for test in found}:
        places = [number for number, test in enumerate(found) if test.panel == panel]
        for number, p in zip(places, _adjusted([found[number].alone for number in places]), strict=True):
            found[number] = replace(found[number], adjusted=p, family=len(places), sweep=sweep)
    return found


def claim_test(claim: Claim, panel: str, pairs: Iterable[Pair], planned: int) -> ClaimTest:
    """One claim on given pairs, adjusted for no other."""
    made = contrast(claim.treatment, claim.baseline, pairs)
    alone = p_values(claim, made.estimate)
    return ClaimTest(claim, panel, made, planned, alone, alone)


def p_values(claim: Claim, seen: Estimate | None) -> PValues:
    """The tests of a claim, not adjusted; all NaN without a spread, and 1 on the wrong side."""
    if seen is None:
        return PValues()
    holds, fails = _distances(claim, seen.mean)
    # What is not equal differs, to either side; what is to differ has no opposite but to be equal.
    opposite = fails if claim.expect in EQUALITY else -holds
    return PValues(*(p_beyond(seen, each) for each in (holds, fails, opposite)))


def together(tests: Sequence[ClaimTest]) -> list[ClaimTest]:
    """The tests of all sweeps, each with whether its verdict stands among them and which other one it repeats."""
    repeated = [_repeated(test, tests[:place], tests[place + 1 :]) for place, test in enumerate(tests)]
    first = [test for test, other in zip(tests, repeated, strict=True) if other is None]
    settled = {
        id(test): replace(test, stands=_verdict(test.estimate, p) == test.verdict)
        for test, p in zip(first, _adjusted([test.alone for test in first]), strict=True)
    }
    return [
        settled[id(test)] if other is None else replace(test, repeats=settled[id(other)])
        for test, other in zip(tests, repeated, strict=True)
    ]


def answerable(claim: Claim, planned: Sequence[Planned]) -> bool:
    """Whether the sweep plans runs for it."""
    try:
        return bool(_in_panels(claim, RunTable(), planned))
    except UserError:
        return False


def _verdict(seen: Estimate | None, p: PValues) -> str:
    if seen is None or not seen.shows_interval:
        return INCONCLUSIVE
    return HOLDS if p.holds < ALPHA else FAILS if p.fails < ALPHA else INCONCLUSIVE


def _distances(claim: Claim, mean: float) -> tuple[float, float]:
    """How far the mean lies on the side that speaks for a claim, and against it; negative on the other side."""
    if claim.expect in ("above", "below"):
        signed = mean if claim.expect == "above" else -mean
        return signed, claim.margin - signed
    inside, away = claim.margin - abs(mean), abs(mean)
    return (inside, away) if claim.expect == "equal" else (away, inside)


def _adjusted(alone: Sequence[PValues]) -> list[PValues]:
    """Every kind of test adjusted for all of its kind."""
    return [PValues(*each) for each in zip(*(holm(kind) for kind in zip(*alone, strict=True)), strict=True)]


def _repeated(test: ClaimTest, before: Sequence[ClaimTest], after: Sequence[ClaimTest]) -> ClaimTest | None:
    """The test of the same question on most runs, this one's included; of those on the same runs, the first."""
    runs = test.contrast.runs
    same = [
        other
        for other in (*before, *after)
        if _question(other) == _question(test) and runs and runs <= other.contrast.runs
    ]
    most = max(same, key=lambda other: len(other.contrast.runs), default=None)
    if most is None or (most.contrast.runs == runs and not any(most is other for other in before)):
        return None
    return most


def _question(test: ClaimTest) -> tuple[object, ...]:
    claim = test.claim
    asked = (claim.score, claim.measure, claim.axis, claim.expect, claim.than, claim.between)
    return claim.treatment, claim.baseline, *asked


def _in_panels(claim: Claim, table: RunTable, planned: Sequence[Planned]) -> list[ClaimTest]:
    """The claim in each panel, or across two values of an axis; adjusted for nothing yet."""
    there = [run for run in planned if _is_at(claim, run.axes)]
    runs = [run for run in table.runs if _is_at(claim, run.axes)]
    if claim.measure is not None:
        tests = [_measure_test(claim, each) for each in measured(claim, there, runs)]
        if not tests:
            raise _unplanned(claim)
        return tests
    if claim.between is not None:
        axis, *values = claim.between
        sides = [
            (_planned_pairs(claim, (run for run in there if run.axes.get(axis) == value)), value)
            for value in values
        ]
        if not all(count for count, _ in sides):
            raise _unplanned(claim)
        one, other = (_by_seeds(claim, [run for run in runs if run.axes.get(axis) == v]) for v in values)
        both = [one[seeds].minus(other[seeds]) for seeds in one if seeds in other]
        place = f"{axis}: {values[0]} against {values[1]}"
        return [claim_test(claim, place, both, min(count for count, _ in sides))]
    panels = {
        panel: _planned_pairs(claim, (run for run in there if run.panel == panel))
        for panel in dict.fromkeys(run.panel for run in there)
    }
    if not any(panels.values()):
        raise _unplanned(claim)
    return [
        claim_test(claim, panel, _pairs(claim, [run for run in runs if run.panel == panel]).values(), count)
        for panel, count in panels.items()
        if count
    ]


def _measure_test(claim: Claim, found: Measured) -> ClaimTest:
    """A claim about a measure: it holds where every contrast says so, and fails where one of them does."""
    seen = min(found.contrasts, key=lambda each: each.estimate.mean if each.estimate else math.inf)
    alone = [p_values(claim, each.estimate) for each in found.contrasts]
    count = len(alone)
    p = PValues(
        max(each.holds for each in alone),
        min(1.0, count * min(each.fails for each in alone)),
        min(1.0, count * min(each.opposite for each in alone)),
    )
    p = _censored(claim, seen.estimate, p, found)
    return ClaimTest(claim, found.panel, seen, found.planned, p, p, remark=found.remark)


def _censored(claim: Claim, seen: Estimate | None, p: PValues, found: Measured) -> PValues:
    """The p values less what a bound cannot show: a difference that may be larger is not shown to be small, and one
    that
    may be smaller is not shown to be large.
    """
    if seen is None or not (found.at_least or found.at_most):
        return p
    not_small, not_large = found.at_least, found.at_most
    if claim.expect == "above":
        return PValues(1.0 if not_large else p.holds, *(1.0 if not_small else each for each in p[1:]))
    if claim.expect == "below":
        return PValues(1.0 if not_small else p.holds, *(1.0 if not_large else each for each in p[1:]))
    different = (
        1.0 if (not_large if seen.mean > 0 else not_small) else (p.holds, p.fails)[1 - EQUALITY[claim.expect]]
    )
    return PValues(1.0, different, different) if claim.expect == "equal" else PValues(different, 1.0, 1.0)


def _is_at(claim: Claim, axes: Mapping[str, str]) -> bool:
    return all(axes.get(axis) in wanted for axis, wanted in claim.at.items())


def _unplanned(claim: Claim) -> UserError:
    named = f"{claim.treatment} - {claim.baseline}" if claim.baseline else claim.treatment
    return UserError(f"claims: '{claim.says}': the sweep plans no runs for {named} as it names them.")


def _planned_pairs(claim: Claim, runs: Iterable[Planned]) -> int:
    kept = list(runs)
    methods = [method for method in (claim.treatment, claim.baseline) if method is not None]
    return len(set.intersection(*({run.seeds for run in kept if run.method == name} for name in methods)))


def _by_seeds(claim: Claim, runs: Sequence[Run]) -> dict[str, Pair]:
    return {seeds: pair for (seeds, _), pair in _pairs(claim, runs).items()}


def _pairs(claim: Claim, runs: Sequence[Run]) -> dict[tuple[str, str], Pair]:
    treatment, baseline = (
        _one_per_pair(name, [run for run in runs if run.method == name])
        for name in (claim.treatment, claim.baseline)
    )
    return pair_up(treatment, baseline if claim.baseline else None, claim.score, claim.than)


def _one_per_pair(method: str | None, runs: Sequence[Run]) -> Sequence[Run]:
    """The runs. Raises UserError where two of them would be paired with the same run."""
    met: dict[tuple[str, str], Run] = {}
    for run in runs:
        other = met.setdefault(run.pair, run)
        if other is not run:
            both = ", ".join(sorted((other.run_id, run.run_id)))
            raise UserError(
                f"{method} at {run.seeds}: two runs ({both}); a method has one run for each seed and starting policy."
            )
    return runs

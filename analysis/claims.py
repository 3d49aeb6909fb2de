"""What a paper claims, held against what was measured, by rules that are the same in both directions.

A claim names a contrast (`cppo - dppo_topk_tv`, or one method), a score and what to expect of it. It is tested twice by
Student's t over pairs of runs with the same seed and starting policy, once for it and once against it, and the p
values of either kind are adjusted together (Holm) for all claims of a panel, those without runs included.

            agrees: significantly ...        does not agree: significantly ...
above       above zero                       below MARGIN: an advantage that large is excluded
below       below zero                       above -MARGIN
equal       within MARGIN of zero            different from zero
not zero    different from zero              within MARGIN of zero

Anything else is not resolved; neither are fewer pairs than the sweep plans, whose verdict is interim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis import stats
from analysis.comparisons import ALPHA, POWER
from analysis.result_files import ResultFile, Row, score, seeds_of
from analysis.results import evaluation_sd
from analysis.stats import Estimate
from cppo_lab.errors import UserError, one_of

EXPECTATIONS = ("above", "below", "equal", "not zero")
MARGIN = 0.03
"""Differences of accuracy below three points are called equal, and no advantage worth having."""
MARGINS = {
    "final": MARGIN,
    "best": MARGIN,
    "area": MARGIN,
    # A tenth of the mean deviation.
    "deviation_early_minus_late": 0.1,
    "budget_start_minus_end": 0.0,
    "budget_share": 0.0,
    "masked_share": 0.0,
}
"""The scores, and what is small in each."""
ACCURACIES = tuple(name for name, margin in MARGINS.items() if margin == MARGIN)
_KEYS = {"says", "contrast", "score", "expect", "than", "at", "between", "headline"}


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper. `at` keeps runs with these values of axes; `between` takes the difference of the
    contrast between two values of one axis; `than` is subtracted from the score. A `headline` is shown first.
    """

    says: str
    treatment: str
    baseline: str | None
    score: str
    expect: str
    than: float
    at: Mapping[str, tuple[str, ...]]
    between: tuple[str, str, str] | None
    headline: bool

    @property
    def margin(self) -> float:
        """What is small in its score."""
        return MARGINS[self.score]

    @property
    def is_of_accuracy(self) -> bool:
        """Whether it is about accuracies, which are told in points."""
        return self.score in ACCURACIES


@dataclass(frozen=True)
class Planned:
    """One run that a sweep plans: where its result file will have it."""

    panel: str
    method: str
    seeds: str
    axes: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """A claim in one panel: the estimate over its pairs, None without any, and the p values for and against it."""

    claim: Claim
    panel: str
    estimate: Estimate | None
    planned: int
    p_for: float
    p_against: float
    family: int = 1

    @property
    def is_interim(self) -> bool:
        """Whether fewer pairs were measured than the sweep plans."""
        return (self.estimate.n if self.estimate else 0) < self.planned

    @property
    def verdict(self) -> str:
        """`agrees`, `does not agree` or `not resolved`, by the rules above; p values that are adjusted already."""
        seen = self.estimate
        if seen is None or not seen.has_interval:
            return "not resolved"
        if self.p_for < ALPHA:
            return "agrees"
        return "does not agree" if self.p_against < ALPHA else "not resolved"

    @property
    def needed(self) -> int | None:
        """Pairs that would resolve it with probability POWER at Holm's first step, were mean and spread those seen."""
        seen = self.estimate
        if seen is None or not seen.sd > 0:
            return None
        level = 1 - ALPHA / self.family
        counts = (
            stats.pairs_to_resolve(distance, seen.sd, POWER, level)
            for distance in _distances(self.claim, seen.mean)
            if distance > 0
        )
        return min((count for count in counts if count is not None), default=None)


def _distances(claim: Claim, mean: float) -> tuple[float, float]:
    """How far the mean lies on the side that speaks for a claim, and against it; negative on the other side."""
    if claim.expect in ("above", "below"):
        signed = mean if claim.expect == "above" else -mean
        return signed, claim.margin - signed
    inside, away = claim.margin - abs(mean), abs(mean)
    return (inside, away) if claim.expect == "equal" else (away, inside)


def p_values(claim: Claim, seen: Estimate | None) -> tuple[float, float]:
    """Two-sided p values of the tests for and against a claim; NaN without a spread, 1 on the wrong side."""
    if seen is None or not seen.has_interval:
        return math.nan, math.nan
    found = (
        stats.t_p(distance, seen.sd, seen.n) if distance > 0 else 1.0
        for distance in _distances(claim, seen.mean)
    )
    return next(found), next(found)


def read_claims(name: str, content: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The claims of a sweep file. Raises UserError where one is not as described above."""
    return [_claim(f"{name}: claims", each) for each in content]


def _claim(place: str, content: Mapping[str, Any]) -> Claim:
    for key in content:
        if key not in _KEYS:
            raise one_of(place, str(key), _KEYS)
    for key in ("says", "contrast", "expect"):
        if not isinstance(content.get(key), str):
            raise UserError(f"{place}: every claim needs the text '{key}'.")
    if content["expect"] not in EXPECTATIONS:
        raise one_of(f"{place}: expect", content["expect"], EXPECTATIONS)
    named = str(content.get("score", "final"))
    if named not in MARGINS:
        raise one_of(f"{place}: score", named, MARGINS)
    headline, than = content.get("headline", False), content.get("than", 0.0)
    if not isinstance(headline, bool):
        raise UserError(f"{place}: headline={headline}: must be true or false.")
    if isinstance(than, bool) or not isinstance(than, int | float):
        raise UserError(f"{place}: than={than}: must be a number.")
    treatment, _, baseline = content["contrast"].partition(" - ")
    at = content.get("at") or {}
    if not isinstance(at, Mapping):
        raise UserError(f"{place}: at={at}: must be a mapping from axes to values.")
    return Claim(
        says=content["says"],
        treatment=treatment.strip(),
        baseline=baseline.strip() or None,
        score=named,
        expect=content["expect"],
        than=float(than),
        at={str(key): _texts(value) for key, value in at.items()},
        between=_between(place, content.get("between")),
        headline=headline,
    )


def _between(place: str, content: Any) -> tuple[str, str, str] | None:
    if content is None:
        return None
    if isinstance(content, Mapping) and len(content) == 1:
        ((axis, values),) = content.items()
        if isinstance(values, list) and len(values) == 2:
            return str(axis), str(values[0]), str(values[1])
    raise UserError(f"{place}: between={content}: must be one axis with a list of two of its values.")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def outcomes(claims: Sequence[Claim], results: ResultFile, planned: Sequence[Planned]) -> list[Outcome]:
    """Every claim in every panel in which the sweep plans its runs, in the order of the claims.

    Raises UserError for a claim that no planned run has anything to do with.
    """
    found = [outcome for claim in claims for outcome in _outcomes(claim, results, planned)]
    for panel in {outcome.panel for outcome in found}:
        places = [number for number, outcome in enumerate(found) if outcome.panel == panel]
        # A claim without runs will be tested one day: it counts, as one that is not significant.
        both = np.nan_to_num(
            [[found[number].p_for for number in places], [found[number].p_against for number in places]],
            nan=1.0,
        )
        for number, p_for, p_against in zip(places, *(stats.holm(p) for p in both), strict=True):
            found[number] = replace(
                found[number], p_for=float(p_for), p_against=float(p_against), family=len(places)
            )
    return found


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
            _by_seeds(_pairs(claim, [row for row in rows if row.get(axis) == value]))
            for value in (first, second)
        )
        values = {key: (one[key][0] - other[key][0], math.hypot(one[key][1], other[key][1])) for key in one}
        both = [value for key, value in values.items() if key in other]
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


def _outcome(claim: Claim, panel: str, values: Sequence[tuple[float, float]], planned: int) -> Outcome:
    """The outcome over `values`: of every pair its contrast and the evaluation error of that."""
    seen = None
    if values:
        contrasts, errors = (np.array(each, dtype=np.float64) for each in zip(*values, strict=True))
        seen = stats.t_interval(contrasts, least_sd=evaluation_sd(list(errors)))
    return Outcome(claim, panel, seen, planned, *p_values(claim, seen))


def _pairs(claim: Claim, rows: Sequence[Row]) -> dict[tuple[str, str], tuple[float, float]]:
    """The contrast of every pair with its evaluation error (NaN where none is known), by seeds and starting policy."""
    treated = {_pair(row): row for row in rows if row["method"] == claim.treatment}
    other = {_pair(row): row for row in rows if row["method"] == claim.baseline}
    found = {}
    for key, row in treated.items():
        value, error = _score(row, claim.score) - claim.than, _error(claim, row)
        if claim.baseline is not None:
            if key not in other:
                continue
            value -= _score(other[key], claim.score)
            error = math.hypot(error, _error(claim, other[key]))
        if math.isfinite(value):
            found[key] = value, error
    return found


def _pair(row: Row) -> tuple[str, str]:
    # Two processors make different policies of one recipe; their accuracy tells them apart.
    return seeds_of(row), f"{row['starting_policy']} {row['start']}"


def _error(claim: Claim, row: Row) -> float:
    return score(row, "final_error") if claim.score == "final" else math.nan


def _by_seeds(pairs: Mapping[tuple[str, str], tuple[float, float]]) -> dict[str, tuple[float, float]]:
    return {seeds: value for (seeds, _), value in pairs.items()}


def _score(row: Row, name: str) -> float:
    if name == "deviation_early_minus_late":
        early, late = score(row, "deviation_early"), score(row, "deviation_late")
        return (early - late) / ((early + late) / 2) if early + late > 0 else math.nan
    if name == "budget_start_minus_end":
        values = [float(part.split(":")[1]) for part in row.get("budget", "").split()]
        return values[0] - values[-1] if values else math.nan
    return score(row, name)

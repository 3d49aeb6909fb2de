"""What a paper claims, held against what was measured, by rules that are the same in both directions.

A claim names a contrast (`cppo - dppo_topk_tv`, or one method), a score and what to expect of it. Its interval is
Student's t over pairs of runs with the same seed and starting policy, and p values of the claims of one panel are
adjusted together (Holm).

above / below  agrees: the interval lies on the side named, and Holm's p is below 0.05.
               does not agree: the interval excludes a difference of MARGIN, or more, on that side.
equal          agrees: the interval lies within MARGIN of zero. does not agree: it excludes zero, and Holm's p is
               below 0.05.
not zero       agrees: the interval excludes zero, and Holm's p is below 0.05.
Anything else is not resolved.
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
from analysis.stats import Array, Estimate
from cppo_lab.errors import UserError, one_of

MARGIN = 0.03
"""Differences of accuracy below three points are called equal, and only larger ones are an advantage."""
EXPECTATIONS = ("above", "below", "equal", "not zero")
ACCURACIES = ("final", "best", "area", "first_minus_second_half")
SCORES = (*ACCURACIES, "deviation_early_minus_late", "budget_start_minus_end", "budget_share", "masked_share")
_KEYS = {"says", "contrast", "score", "expect", "at", "between", "headline"}


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper. `at` keeps panels with these values of axes; `between` takes the difference of the
    contrast between two values of one axis. A `headline` must be known to MARGIN.
    """

    says: str
    treatment: str
    baseline: str | None
    score: str
    expect: str
    at: Mapping[str, tuple[str, ...]]
    between: tuple[str, str, str] | None
    headline: bool

    @property
    def margin(self) -> float:
        """MARGIN for accuracies; other scores have no size that would be too small to matter."""
        return MARGIN if self.score in ACCURACIES else 0.0


@dataclass(frozen=True)
class Outcome:
    """A claim in one panel. `needed` is how many pairs would resolve it."""

    claim: Claim
    panel: str
    estimate: Estimate | None
    p: float
    p_holm: float

    @property
    def verdict(self) -> str:
        return verdict(self.claim, self.estimate, self.p_holm)

    @property
    def half_width(self) -> float:
        """Half the width of the interval; NaN without one."""
        seen = self.estimate
        return (seen.high - seen.low) / 2 if seen is not None and seen.has_interval else math.nan

    @property
    def needed(self) -> int | None:
        """Pairs that would resolve it, were the mean and the spread those seen: enough to find the difference, or to
        bring the interval to the right side of the margin.
        """
        seen = self.estimate
        if seen is None or not seen.sd > 0:
            return None
        claim = self.claim
        mean = -seen.mean if claim.expect == "below" else seen.mean
        found = stats.pairs_to_resolve(mean, seen.sd, POWER)
        one_sided = claim.expect in ("above", "below")
        counts = [found] if claim.expect in ("equal", "not zero") or mean > 0 else []
        room = claim.margin - (mean if one_sided else abs(mean))
        if room > 0 and claim.expect != "not zero":
            counts.append(pairs_for_half_width(seen.sd, room))
        return min((count for count in counts if count is not None), default=None)


def verdict(claim: Claim, seen: Estimate | None, p_holm: float) -> str:
    """`agrees`, `does not agree` or `not resolved`, by the rules above."""
    if seen is None or not seen.has_interval:
        return "not resolved"
    low, high = (-seen.high, -seen.low) if claim.expect == "below" else (seen.low, seen.high)
    found = (low > 0 or high < 0) and p_holm < ALPHA
    if claim.expect == "equal":
        if -claim.margin < low and high < claim.margin:
            return "agrees"
        return "does not agree" if found else "not resolved"
    if claim.expect == "not zero":
        return "agrees" if found else "not resolved"
    if low > 0 and found:
        return "agrees"
    return "does not agree" if high < claim.margin else "not resolved"


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
    if named not in SCORES:
        raise one_of(f"{place}: score", named, SCORES)
    treatment, _, baseline = content["contrast"].partition(" - ")
    between = content.get("between")
    axis, values = next(iter(between.items())) if between else ("", ["", ""])
    return Claim(
        says=content["says"],
        treatment=treatment.strip(),
        baseline=baseline.strip() or None,
        score=named,
        expect=content["expect"],
        at={key: _texts(value) for key, value in (content.get("at") or {}).items()},
        between=(axis, str(values[0]), str(values[1])) if between else None,
        headline=bool(content.get("headline")),
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def outcomes(claims: Sequence[Claim], results: ResultFile) -> list[Outcome]:
    """Every claim in every panel that has its methods, in the order of the claims."""
    found = [outcome for claim in claims for outcome in _outcomes(claim, results)]
    for panel in {outcome.panel for outcome in found}:
        places = [number for number, outcome in enumerate(found) if outcome.panel == panel]
        adjusted = stats.holm(np.array([found[number].p for number in places]))
        for number, p in zip(places, adjusted, strict=True):
            found[number] = replace(found[number], p_holm=float(p))
    return found


def _outcomes(claim: Claim, results: ResultFile) -> list[Outcome]:
    if claim.between is not None:
        axis, first, second = claim.between
        one, other = (_by_seeds(_pairs(claim, results.rows, {axis: value})) for value in (first, second))
        values = [one[key] - other[key] for key in one if key in other]
        return [_outcome(claim, f"{axis}: {first} against {second}", values)] if values else []
    found = []
    for panel in results.panels:
        rows = [row for row in results.rows if row["panel"] == panel]
        if all(row.get(axis) in wanted for axis, wanted in claim.at.items() for row in rows[:1]):
            values = list(_pairs(claim, rows, {}).values())
            found += [_outcome(claim, panel, values)] if values else []
    return found


def _outcome(claim: Claim, panel: str, values: Sequence[float]) -> Outcome:
    array = np.array(values, dtype=np.float64)
    seen = stats.t_interval(array)
    p = stats.paired_t_p(array)
    return Outcome(claim, panel, seen, p, p)


def _pairs(claim: Claim, rows: Sequence[Row], at: Mapping[str, str]) -> dict[tuple[str, str], float]:
    """The contrast of every pair, by seeds and starting policy."""
    kept = [row for row in rows if all(row.get(axis) == value for axis, value in at.items())]
    treated = [row for row in kept if row["method"] == claim.treatment]
    if claim.score == "first_minus_second_half":
        return _halves(treated)
    values = {_pair(row): _score(row, claim.score) for row in treated}
    if claim.baseline is not None:
        other = {_pair(row): _score(row, claim.score) for row in kept if row["method"] == claim.baseline}
        values = {key: value - other[key] for key, value in values.items() if key in other}
    return {key: value for key, value in values.items() if math.isfinite(value)}


def _pair(row: Row) -> tuple[str, str]:
    # Two processors make different policies of one recipe; their accuracy tells them apart.
    return seeds_of(row), f"{row['starting_policy']} {row['start']}"


def _halves(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    half = len(rows) // 2
    return {
        _pair(first): score(first, "final") - score(second, "final")
        for first, second in zip(rows[:half], rows[half : 2 * half], strict=True)
    }


def _by_seeds(pairs: Mapping[tuple[str, str], float]) -> dict[str, float]:
    return {seeds: value for (seeds, _), value in pairs.items()}


def _score(row: Row, name: str) -> float:
    if name == "deviation_early_minus_late":
        return score(row, "deviation_early") - score(row, "deviation_late")
    if name == "budget_start_minus_end":
        values = [float(part.split(":")[1]) for part in row["budget"].split()]
        return values[0] - values[-1] if values else math.nan
    return score(row, name)


def pairs_for_half_width(sd: float, width: float, most: int = 10_000) -> int:
    """Pairs until Student's interval reaches `width` to each side, were the spread `sd` known."""
    from scipy import stats as scipy_stats

    for n in range(2, most):
        if float(scipy_stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n) <= width:
            return n
    return most


def pair_values(claim: Claim, results: ResultFile, panel: str) -> Array:
    """The contrast of every pair of a panel, [n]."""
    rows = [row for row in results.rows if row["panel"] == panel]
    return np.array(list(_pairs(claim, rows, {}).values()), dtype=np.float64)

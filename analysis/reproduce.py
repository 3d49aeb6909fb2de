"""Whether fresh seeds agree with the committed rows of a sweep, contrast by contrast.

A contrast is a mean of paired differences over seeds. Its mean over n fresh pairs is compared with the committed one by
Student's two-sample t test, with the spread between seeds pooled from both. Two fresh pairs alone give an interval
that says nothing (t = 12.7), so the committed pairs, of which there are many, have to lend their spread: that is the
one assumption, and it fails where a machine makes runs more or less erratic instead of better or worse.

agrees       significantly within the margin of the committed mean (two one-sided tests, each at 2.5%)
disagrees    significantly different from it
cannot tell  neither

The p values of either kind are Holm-adjusted over the contrasts of one reproduction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats as scipy_stats
from scipy.optimize import brentq

from cppo_lab.analysis.claim_tests import answerable, check_claims
from cppo_lab.analysis.claims import MARGIN, Claim, Planned
from cppo_lab.analysis.contrasts import ALPHA, POWER, Contrast, compare, holm
from cppo_lab.analysis.formatting import MINUS
from cppo_lab.analysis.grouping import DEFAULT_BASELINES
from cppo_lab.analysis.run_table import Run, RunTable

AGREES, DISAGREES, CANNOT_TELL = "agrees", "disagrees", "cannot tell"
SHARE_OF_EFFECT = 0.5
"""The margin of a score that has no margin of its own, as a share of the committed mean."""
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Replication:
    """A contrast on committed pairs and on fresh ones. `margin` is the difference between both that counts as none."""

    says: str
    panel: str
    committed: Contrast
    fresh: Contrast
    margin: float
    is_of_accuracy: bool = True
    family: int = 1
    p_different: float = math.nan
    p_equal: float = math.nan

    @property
    def difference(self) -> float:
        """The fresh mean minus the committed one; NaN without pairs of either kind."""
        if self.committed.estimate is None or self.fresh.estimate is None:
            return math.nan
        return self.fresh.estimate.mean - self.committed.estimate.mean

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the pooled spread."""
        return self.committed.n + self.fresh.n - 2

    @cached_property
    def spread(self) -> float:
        """Standard deviation of a paired difference between seeds, pooled; NaN without any."""
        known = [each for each in (self.committed, self.fresh) if each.n >= 2 and each.estimate is not None]
        weights = np.array([each.n - 1 for each in known], dtype=np.float64)
        variances = np.array([each.estimate.sd**2 for each in known if each.estimate is not None])
        return float(np.sqrt((weights * variances).sum() / weights.sum())) if known else math.nan

    @property
    def error(self) -> float:
        """Standard error of `difference`."""
        return _error(self.spread, self.committed.n, self.fresh.n)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of `difference`; NaN without a spread."""
        if not math.isfinite(self.error):
            return math.nan, math.nan
        half = float(scipy_stats.t.ppf(1 - ALPHA / 2, self.freedom)) * self.error
        return self.difference - half, self.difference + half

    @property
    def verdict(self) -> str:
        """AGREES, DISAGREES or CANNOT_TELL. A significant difference that is shown to be within the margin agrees."""
        if self.p_equal < ALPHA:
            return AGREES
        return DISAGREES if self.p_different < ALPHA else CANNOT_TELL

    def detectable(self, pairs: int) -> float:
        """The true difference that `pairs` fresh pairs find with probability POWER, at Holm's first step."""
        return detectable(self.spread, self.committed.n, pairs, ALPHA / self.family)

    @property
    def seeds_to_agree(self) -> float:
        """Fresh pairs that show agreement with probability POWER where there is no difference; infinite where the
        committed rows alone leave more than the margin.
        """
        return seeds_to_agree(self.spread, self.committed.n, self.margin, ALPHA / self.family)

    def record(self) -> dict[str, Any]:
        """As plain data."""
        sides = {
            side: {"n": each.n, "mean": each.estimate.mean if each.estimate else None}
            for side, each in (("committed", self.committed), ("fresh", self.fresh))
        }
        return {
            "says": self.says,
            "panel": self.panel,
            "verdict": self.verdict,
            **sides,
            "difference": self.difference,
            "interval": list(self.interval),
            "margin": self.margin,
            "p_different": self.p_different,
            "p_equal": self.p_equal,
            "pooled_sd": self.spread,
            "detectable": self.detectable(self.fresh.n),
            "seeds_to_agree": self.seeds_to_agree,
        }


def replications(
    claims: Sequence[Claim],
    baseline: str | None,
    committed: RunTable,
    fresh: RunTable,
    margin: float | None = None,
) -> list[Replication]:
    """Every claim that the committed rows have pairs for, and every contrast with the baseline that no claim is about.

    margin: replaces the margin of accuracies. Claims about a measure are left out: where each method is at its best
    is chosen from all seeds, and from a few fresh ones it is chosen so badly that their spread is another.
    """
    planned = [Planned(run.panel, run.method, run.seeds, run.axes) for run in committed.runs]
    asked = [claim for claim in claims if claim.measure is None and answerable(claim, planned)]
    pairs = zip(check_claims(asked, committed, planned), check_claims(asked, fresh, planned), strict=True)
    found = [
        Replication(
            known.claim.says,
            known.panel,
            known.contrast,
            new.contrast,
            _margin(known.claim, known.contrast, margin),
            known.claim.is_of_accuracy,
        )
        for known, new in pairs
        if known.contrast.pairs
    ]
    claimed = {each.committed.runs for each in found}
    rest = [each for each in _with_baseline(baseline, committed, fresh) if each.committed.runs not in claimed]
    return adjusted(found + [replace(each, margin=MARGIN if margin is None else margin) for each in rest])


def adjusted(found: Iterable[Replication]) -> list[Replication]:
    """The same replications with their p values, adjusted as one family."""
    kept = list(found)
    different = holm([_p_beyond(each, abs(each.difference)) for each in kept])
    equal = holm([_p_beyond(each, each.margin - abs(each.difference)) for each in kept])
    return [
        replace(each, p_different=p, p_equal=q, family=len(kept))
        for each, p, q in zip(kept, different, equal, strict=True)
    ]


def detectable(spread: float, committed: int, fresh: int, level: float, power: float = POWER) -> float:
    """The true difference between both means that a two-sided test at `level` finds with probability `power`; NaN
    without a spread.
    """
    freedom, error = committed + fresh - 2, _error(spread, committed, fresh)
    if not error > 0 or freedom < 1:
        return math.nan
    critical = float(scipy_stats.t.ppf(1 - level / 2, freedom))

    def missing(shift: float) -> float:
        # Below, the chance to be significant in the wrong direction is nil.
        return float(scipy_stats.nct.sf(critical, freedom, shift)) - power

    return float(brentq(missing, 0.0, critical + 10.0)) * error


def seeds_to_agree(spread: float, committed: int, margin: float, level: float, power: float = POWER) -> float:
    """Fresh pairs that show the means to be within `margin` with probability `power` where they are equal; infinity
    where not even 1,000 would.
    """
    for fresh in range(1, _MOST_SEEDS + 1):
        error, freedom = _error(spread, committed, fresh), committed + fresh - 2
        if freedom < 1 or not math.isfinite(error):
            continue
        room = margin / error - float(scipy_stats.t.ppf(1 - level / 2, freedom)) if error else math.inf
        if 2 * float(scipy_stats.norm.cdf(room)) - 1 >= power:
            return fresh
    return math.inf


def _error(spread: float, committed: int, fresh: int) -> float:
    return spread * math.sqrt(1 / committed + 1 / fresh) if committed and fresh else math.nan


def _p_beyond(found: Replication, distance: float) -> float:
    """Two-sided p against a bound `distance` away from the difference; 1 on its wrong side, NaN without a spread."""
    if found.freedom < 1 or not math.isfinite(found.error) or not math.isfinite(distance):
        return math.nan
    if distance < 0:
        return 1.0
    if found.error == 0:
        return 1.0 if distance == 0 else 0.0
    return float(2 * scipy_stats.t.sf(distance / found.error, found.freedom))


def _margin(claim: Claim, known: Contrast, margin: float | None) -> float:
    if claim.is_of_accuracy and margin is not None:
        return margin
    mean = known.estimate.mean if known.estimate else math.nan
    return claim.margin or SHARE_OF_EFFECT * abs(mean)


def _with_baseline(baseline: str | None, committed: RunTable, fresh: RunTable) -> list[Replication]:
    found = []
    for panel in committed.panels:
        methods = committed.methods(panel)
        base = _baseline_of(methods, baseline)
        for method in methods:
            if base is None or method == base:
                continue
            known, new = (_contrast(table, panel, method, base) for table in (committed, fresh))
            if known.pairs:
                found.append(Replication(f"{method} {MINUS} {base}", panel, known, new, MARGIN))
    return found


def _contrast(table: RunTable, panel: str, method: str, base: str) -> Contrast:
    return compare(table.of(panel, method), table.of(panel, base), (method, base))


def _baseline_of(methods: Sequence[str], wanted: str | None) -> str | None:
    if wanted in methods:
        return wanted
    return next((name for name in DEFAULT_BASELINES if name in methods), None) if wanted is None else None


def moved(run: Run, beside: Run, seed: str, seed_value: str) -> Run:
    """A fresh run at the place of a committed one: its panel, method and axes, but its own seed."""
    axes = {**beside.axes, seed: seed_value}
    return replace(run, panel=beside.panel, method=beside.method, axes=axes)

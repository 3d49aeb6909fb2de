"""Contrasts of a sweep that takes more seeds until they are settled: intervals that hold at every look.

A group-sequential design. The numbers of pairs at which the contrasts are looked at are planned. The error of 5% is
shared equally by the contrasts of a panel (Bonferroni) and spent over the looks in proportion to the pairs (Lan and
DeMets 1983, https://doi.org/10.2307/2336502, with the spending function of Kim and DeMets 1987 whose exponent is 1).
What is shown are repeated confidence intervals (Jennison and Turnbull 1989,
https://doi.org/10.1111/j.2517-6161.1989.tb01762.x): all of them cover the true difference with 95% probability,
whenever and for whatever reason the sweep stops.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats as scipy_stats

from cppo_lab.analysis.contrasts import ALPHA, Contrast
from cppo_lab.analysis.statistics import Estimate

Decision = Literal["above", "below", "equivalent", "open"]
_DRAWS = 400_000


@dataclass(frozen=True)
class Looks:
    """The planned looks of a sweep: at `pairs` pairs the intervals have `levels`.

    family: contrasts that share the error. margin: a difference within it, in accuracy, counts as none.
    """

    pairs: tuple[int, ...]
    levels: tuple[float, ...]
    family: int
    margin: float

    def level(self, pairs: int) -> float:
        """The level of an interval over so many pairs: that of the last look that has them."""
        return self.levels[max(0, bisect.bisect_right(self.pairs, pairs) - 1)]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def read_looks(content: Mapping[str, Any]) -> Looks | None:
    """What `record` has written; None for an empty mapping."""
    if not content:
        return None
    pairs, levels = (tuple(content[key]) for key in ("pairs", "levels"))
    return Looks(pairs, levels, int(content["family"]), float(content["margin"]))


@functools.cache
def planned_looks(pairs: tuple[int, ...], family: int, margin: float) -> Looks:
    """The looks at `pairs`, rising and from 2 on, of `family` contrasts.

    The levels are those at which normal differences of mean zero, whatever their spread, are once significant with
    probability ALPHA / family. They are drawn, the same ones everywhere: Student's t at all looks has no closed form.
    """
    generator = np.random.default_rng(0)
    totals, squares = np.zeros(_DRAWS), np.zeros(_DRAWS)
    spent, levels, seen = 0.0, [], 0
    for n in pairs:
        for _ in range(n - seen):
            drawn = generator.standard_normal(len(totals))
            totals += drawn
            squares += drawn**2
        seen = n
        spread = np.sqrt((squares - totals**2 / n) / (n - 1))
        t = np.abs(totals) / (spread * math.sqrt(n))
        to_spend = ALPHA / family * n / pairs[-1] - spent
        stopped = round(to_spend * _DRAWS)
        bound = float(np.partition(t, -stopped - 1)[-stopped - 1])
        levels.append(1 - float(2 * scipy_stats.t.sf(bound, n - 1)))
        goes_on = t <= bound
        spent += float((~goes_on).sum()) / _DRAWS
        totals, squares = totals[goes_on], squares[goes_on]
    return Looks(pairs, tuple(levels), family, margin)


def at_looks(contrasts: Sequence[Contrast], looks: Looks) -> tuple[Contrast, ...]:
    """The contrasts with the intervals and p values of these looks.

    More contrasts than the looks were planned for, such as those of all pairs of methods, share their error again.
    """
    more = max(1.0, len(contrasts) / looks.family)
    found = []
    for each in contrasts:
        if each.estimate is None or not each.estimate.has_interval:
            found.append(replace(each, family=looks.family))
            continue
        level = 1 - (1 - looks.level(each.n)) / more
        p = min(1.0, each.p * ALPHA / (1 - level))
        found.append(
            replace(each, estimate=_at_level(each.estimate, level), p_adjusted=p, family=looks.family)
        )
    return tuple(found)


def decision(contrast: Contrast, margin: float) -> Decision:
    """What a contrast `at_looks` has settled."""
    seen = contrast.estimate
    if seen is None or not seen.shows_interval:
        return "open"
    if contrast.resolved:
        return "above" if seen.mean > 0 else "below"
    return "equivalent" if -margin < seen.low and seen.high < margin else "open"


def _at_level(seen: Estimate, level: float) -> Estimate:
    half = float(scipy_stats.t.ppf(0.5 + level / 2, seen.n - 1)) * seen.sd / math.sqrt(seen.n)
    return replace(seen, low=seen.mean - half, high=seen.mean + half)

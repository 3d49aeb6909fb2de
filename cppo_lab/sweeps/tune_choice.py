"""Which of the settings that were tried is chosen, whether it is at the edge of the grid, and which are pruned.

The chosen setting has the highest mean final accuracy over the tuning seeds; among equals the one with the smaller
values, the learning rate first. A setting with a failed run (FAILED), one that diverged before its first evaluation,
has no mean: it counts as the worst and cannot be chosen.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cppo_lab.sweeps.trials import Setting
from cppo_lab.sweeps.tune_section import Prune

PRUNE_LEVEL = 0.99
DRAWS = 1000
"""Of the bootstrap over tuning seeds; they are the same in every study."""
FAILED = math.nan
"""In place of the final accuracy of a run that failed for good."""
Scores = Mapping[Setting, Mapping[str, float]]
"""Final accuracy, 0 to 1, of each setting by the tuning seed."""


@dataclass(frozen=True)
class Mean:
    """Mean and standard error over seeds; the error is NaN for a single one."""

    value: float
    error: float
    seeds: int


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of at least one value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Mean(statistics.fmean(values), error, len(values))


def choose(scores: Scores) -> Setting:
    """The setting with the highest mean; among equals the one with the smaller values, in the order of its keys.

    Raises ValueError where every setting is pruned or has a failed run.
    """
    known = choosable(scores)
    return min(known, key=lambda setting: (-_mean(known[setting]), _values_of(setting)))


def choosable(scores: Scores) -> dict[Setting, Mapping[str, float]]:
    """The settings that may be chosen: without a failed run, and with as many seeds as any such; others were pruned."""
    known = {setting: by_seed for setting, by_seed in scores.items() if not failures(by_seed)}
    most = max((len(by_seed) for by_seed in known.values()), default=0)
    return {setting: by_seed for setting, by_seed in known.items() if len(by_seed) == most}


def failures(by_seed: Mapping[str, float]) -> int:
    """How many of the runs failed for good."""
    return sum(math.isnan(value) for value in by_seed.values())


def choice_error(scores: Scores) -> float | None:
    """The standard error, in true accuracy, that comes from choosing on these seeds rather than on others.

    Two copies of one method can be tuned to different settings, and a test that knows the test seeds alone would call
    that a difference between methods. Over seeds drawn anew (a bootstrap), this is the root mean square of how much the
    setting then chosen differs from the one chosen, by the means of all n seeds, times sqrt(n / (n - 1)).

    Draws are of half the seeds. Draws of all n miss the rare choice of a much worse setting: copies of methods with a
    narrow best then came out as different in up to 9% of simulated studies; with halves, in at most 5%
    (tests/analysis/test_tuning_level.py). None for a single seed.
    """
    chosen = choose(scores)
    seeds = list(scores[chosen])
    if len(seeds) < 2:
        return None
    # Ascending, so that the first of equal means is the one that `choose` takes.
    complete = sorted(choosable(scores), key=_values_of)
    table = np.array([[scores[setting][seed] for seed in seeds] for setting in complete])
    drawn = max(2, len(seeds) // 2)
    draws = np.random.default_rng(0).integers(0, len(seeds), (DRAWS, drawn))
    chosen_anew = table[:, draws].mean(-1).argmax(0)
    means = table.mean(-1)
    squared = float(((means[chosen_anew] - means[complete.index(chosen)]) ** 2).mean())
    return math.sqrt(squared * len(seeds) / (len(seeds) - 1))


def _values_of(setting: Setting) -> list[float]:
    return [value for _, value in setting]


def regret(scores: Scores, chosen: Setting, other: Setting) -> Mean | None:
    """How much less another setting reaches than the chosen one, over the seeds of both; None if it was not tried, or
    has no mean.
    """
    first, second = scores[chosen], scores.get(other, {})
    if failures(second):
        return None
    differences = [first[seed] - second[seed] for seed in first if seed in second]
    return mean_of(differences) if differences else None


def edge_of(values: Sequence[float], chosen: float) -> int:
    """-1 for the lowest, 1 for the highest of several values of a key, else 0."""
    ordered = sorted(set(values))
    if len(ordered) < 2:
        return 0
    return -1 if chosen == ordered[0] else int(chosen == ordered[-1])


def beyond(values: Sequence[float], side: int) -> float:
    """The next value of a grid below (-1) or above (1) its edge: as far again as its neighbour."""
    ordered = sorted(set(values))
    edge, neighbour = (ordered[0], ordered[1]) if side < 0 else (ordered[-1], ordered[-2])
    found = edge * edge / neighbour if ordered[0] > 0 else 2 * edge - neighbour
    return float(f"{found:.3g}")


def pruned(scores: Scores, prune: Prune) -> list[Setting]:
    """The settings that are surely worse than the best one: the 99% interval of their paired difference is below zero,
    and their mean is more than the margin below; and those with a failed run.
    """
    failed = [setting for setting, by_seed in scores.items() if failures(by_seed)]
    if len(failed) == len(scores):
        return failed
    best = choose(scores)
    return failed + [
        setting
        for setting, by_seed in scores.items()
        if setting != best and setting not in failed and _surely_worse(by_seed, scores[best], prune.margin)
    ]


def _surely_worse(of: Mapping[str, float], best: Mapping[str, float], margin: float) -> bool:
    from scipy import stats

    differences = [of[seed] - best[seed] for seed in of if seed in best]
    if len(differences) < 2:
        return False
    mean = mean_of(differences)
    half = float(stats.t.ppf(0.5 + PRUNE_LEVEL / 2, len(differences) - 1)) * mean.error
    return mean.value + half < 0 and mean.value < -margin


def _mean(by_seed: Mapping[str, float]) -> float:
    return statistics.fmean(by_seed.values())

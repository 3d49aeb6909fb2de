"""The A/A check: a method compared with itself must show no difference.

A method's runs are split into two halves, whose final accuracies are contrasted exactly as those of two methods are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cppo_lab.analysis.contrasts import ALPHA, Pair, contrast
from cppo_lab.analysis.run_table import Run
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.summary import Summary

SPLITS = 1000
FEWEST_RUNS = 4


@dataclass(frozen=True)
class SplitCheck:
    """The contrast of every other run with the rest, and the share of random splits in which a difference is found.

    `difference` is None below four runs, where a half has no spread.
    """

    label: str
    runs: int
    difference: Estimate | None
    p: float
    share_found: float

    @property
    def found(self) -> bool:
        return self.difference is not None and self.p < ALPHA

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return f"too few runs (needs {FEWEST_RUNS})"
        return "a difference" if self.found else "no difference"


def check_methods(summary: Summary, generator: np.random.Generator) -> list[SplitCheck]:
    """The check of every method, in the order of the study."""
    return [check_split(result.label, result.runs, generator) for result in summary.results]


def check_split(
    label: str, runs: Sequence[Run], generator: np.random.Generator, splits: int = SPLITS
) -> SplitCheck:
    """Every other run against the rest, then random halves."""
    if len(runs) < FEWEST_RUNS:
        return SplitCheck(label, len(runs), None, math.nan, math.nan)
    values = [Pair(run.final, run.final_error, frozenset([run.run_id])) for run in runs]
    seen, p = _contrast(values[0::2], values[1::2])
    half = len(values) // 2
    found = 0
    for _ in range(splits):
        order = generator.permutation(len(values))
        found += _contrast([values[i] for i in order[:half]], [values[i] for i in order[half:]])[1] < ALPHA
    return SplitCheck(label, len(runs), seen, p, found / splits)


def _contrast(first: Sequence[Pair], second: Sequence[Pair]) -> tuple[Estimate | None, float]:
    made = contrast("", "", (one.minus(other) for one, other in zip(first, second, strict=False)))
    return made.estimate, made.p

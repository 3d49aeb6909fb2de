"""The A/A check: one method against itself must come out as no difference.

A method's runs are split in two halves, whose final accuracies go through the same test as two methods' do: the
procedure that names differences is tried where there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cppo_lab.analysis import statistics
from cppo_lab.analysis.contrasts import ALPHA
from cppo_lab.analysis.statistics import Array, Estimate
from cppo_lab.analysis.summary import Findings

SPLITS = 1000
FEWEST_RUNS = 4


@dataclass(frozen=True)
class SplitCheck:
    """What became of one method: the split of every other run, and the share of random splits that found something.

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


def check_methods(findings: Findings, generator: np.random.Generator) -> list[SplitCheck]:
    """The check of every method, in the order of the study."""
    return [check_split(result.label, result.values("final"), generator) for result in findings.results]


def check_split(
    label: str, finals: Array, generator: np.random.Generator, splits: int = SPLITS
) -> SplitCheck:
    """The check of final accuracies `finals` [n]: every other run against the rest, then random halves."""
    half = len(finals) // 2
    if len(finals) < FEWEST_RUNS:
        return SplitCheck(label, len(finals), None, math.nan, math.nan)
    first, second = finals[0 : 2 * half : 2], finals[1 : 2 * half : 2]
    found = statistics.paired_difference(first, second, generator)
    share = float(np.mean([_is_found(generator.permutation(finals), half) for _ in range(splits)]))
    return SplitCheck(label, len(finals), found.difference, found.p_t, share)


def _is_found(shuffled: Array, half: int) -> bool:
    return statistics.paired_t_p(shuffled[:half] - shuffled[half : 2 * half]) < ALPHA

"""The run table: every run that counts with its scores, whether it was read from run folders, MLflow or a result file.

- final accuracy is the mean of the last three evaluations of a run (the last one where a run has fewer than four after
  the starting policy);
- best, area and the step of the threshold are taken within one window, the same for every run of a panel;
- a run that diverged counts with the last evaluations it reached; a run that failed for another reason or is
  unfinished is shown and not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Curve = tuple[Array, Array]
"""Steps or positions [n], and the values there [n]."""
ACCURACY = "eval/heldout/accuracy"
STDERR = "eval/heldout/stderr"
GREEDY = "eval/heldout_greedy/accuracy"
KL = "policy/k3_vs_rollout"
CURVES = ("accuracy", "budget", "deviation")
_EMPTY: Curve = (np.array([]), np.array([]))


@dataclass(frozen=True, eq=False)
class Scores:
    """Numbers of one run; accuracies in 0..1, NaN where nothing was recorded.

    reached_at is the first evaluated step at the panel's threshold, NaN where the run never got there within the
    window. evaluation_stderr is the binomial standard error of its last evaluation, final_error that of `final`.
    greedy_start and greedy_final are accuracies of the likeliest tokens, at the start and after the last step.
    """

    start: float = math.nan
    final: float = math.nan
    best: float = math.nan
    best_step: float = math.nan
    area: float = math.nan
    reached_at: float = math.nan
    collapsed: float = math.nan
    kl_median: float = math.nan
    kl_p90: float = math.nan
    masked_share: float = math.nan
    evaluation_stderr: float = math.nan
    final_error: float = math.nan
    budget_share: float = math.nan
    deviation_early: float = math.nan
    deviation_late: float = math.nan
    greedy_start: float = math.nan
    greedy_final: float = math.nan


SCORES = tuple(each.name for each in fields(Scores))
OPTIONAL_SCORES = ("greedy_start", "greedy_final")
"""Those that result files leave out where they were not measured."""


def known_mean(values: Array) -> float:
    """The mean of the finite ones; NaN where there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


@dataclass(frozen=True, eq=False)
class Run(Scores):
    """One counted run. Two runs with the same `seeds` and starting `policy` are paired; `axes` are its values on the
    axes of its sweep. The curves are of held-out accuracy and of the budget in force by step, and of the divergence by
    relative position.
    """

    run_id: str = ""
    panel: str = ""
    method: str = ""
    seeds: str = ""
    policy: str = ""
    status: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    accuracy: Curve = field(default=_EMPTY)
    budget: Curve = field(default=_EMPTY)
    deviation: Curve = field(default=_EMPTY)
    choice: frozenset[tuple[str, float]] = frozenset()
    """Of a run at a tuned point: the point, and the standard error in accuracy that comes from how it was chosen."""
    setting: Mapping[str, float] = field(default_factory=dict)
    """Of a run at a tuned point: what was tuned."""
    duration_s: float = math.nan
    device: str = ""
    commit: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        """What a run must share with another one to be paired with it."""
        return self.seeds, self.policy

    def score(self, name: str) -> float:
        """A score by name, including scores derived from others."""
        if name == "deviation_early_minus_late":
            early, late = self.deviation_early, self.deviation_late
            return (early - late) / ((early + late) / 2) if early + late > 0 else math.nan
        if name == "budget_start_minus_end":
            values = self.budget[1]
            return float(values[0] - values[-1]) if len(values) else math.nan
        return float(getattr(self, name))


@dataclass(frozen=True)
class RunTable:
    """Counted runs, in the order of the sweep's panels and methods. `set_aside` is the number of further measurements
    of the same runs, from other machines or commits, that are not used.
    """

    runs: tuple[Run, ...] = ()
    set_aside: int = 0

    @property
    def panels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.panel for run in self.runs))

    def methods(self, panel: str | None = None) -> tuple[str, ...]:
        """The methods with runs, in `panel` alone if one is given."""
        return tuple(dict.fromkeys(run.method for run in self.runs if panel in (None, run.panel)))

    def of(self, panel: str, method: str) -> tuple[Run, ...]:
        """The runs of one method in one panel."""
        return tuple(run for run in self.runs if (run.panel, run.method) == (panel, method))

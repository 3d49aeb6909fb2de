"""Metrics of a group as curves over steps: one row per seed, and what stands for the group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cppo_lab.analysis import statistics
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Curves:
    """One metric of one group. `steps` [S]; `values` [n, S], NaN where a seed did not record the step.

    `died` [n] tells which seeds failed: their line ends where they died.
    """

    steps: Array
    values: Array
    run_ids: tuple[str, ...]
    died: tuple[bool, ...]

    @property
    def n(self) -> int:
        return len(self.run_ids)

    def common(self) -> Mask:
        """Which steps [S] count: those every seed recorded that got that far, and those a seed recorded that did
        not die. A step that only dying runs recorded is no mean; a step where some seeds had nothing to record
        (no update, so no KL) is one over the others.
        """
        there = ~np.isnan(self.values)
        reached = np.array([self.steps[row].max() if row.any() else -1.0 for row in there])
        alive = reached[:, None] >= self.steps[None, :]
        survived = ~np.array(self.died, dtype=np.bool_)
        complete = there.sum(axis=0) >= alive.sum(axis=0)
        return np.asarray(complete | there[survived].any(axis=0), dtype=np.bool_)

    def mean(self) -> Array:
        """Mean over the seeds that recorded each step, [S]; NaN at steps that do not count."""
        return self._over_seeds(np.nanmean)

    def median(self) -> Array:
        """Median over the seeds that recorded each step, [S]; NaN at steps that do not count."""
        return self._over_seeds(np.nanmedian)

    def carried(self) -> Curves:
        """The same curves, each seed that died carried on at its last value.

        Without this the mean would rise when the worst seed dies.
        """
        values = self.values.copy()
        for row, died in zip(values, self.died, strict=True):
            there = np.flatnonzero(~np.isnan(row))
            if died and len(there):
                row[there[-1] + 1 :] = row[there[-1]]
        return Curves(self.steps, values, self.run_ids, self.died)

    def band(self) -> tuple[Array, Array] | None:
        """Low and high [S] around the mean: Student's t 95% interval from three seeds on, the range of the
        two seeds at n = 2 (where a t interval is so wide that it says nothing), None for a single seed.
        """
        if self.n < 2:
            return None
        low, high = np.full(len(self.steps), np.nan), np.full(len(self.steps), np.nan)
        common = self.common()
        for index in range(len(self.steps)):
            present = self.values[:, index][~np.isnan(self.values[:, index])]
            # One seed of several has no range.
            if len(present) < 2 or not common[index]:
                continue
            if len(present) >= 3:
                estimate = statistics.t_interval(present)
                low[index], high[index] = estimate.low, estimate.high
            else:
                low[index], high[index] = present.min(), present.max()
        return low, high

    def binned(self, most: int) -> Curves:
        """The same curves on at most `most` points: neighbouring steps replaced by their median, per seed."""
        if len(self.steps) <= most:
            return self
        parts = np.array_split(self.steps, most)
        bins = np.repeat(np.arange(most), [len(part) for part in parts])
        values = pd.DataFrame(self.values.T).groupby(bins).median().to_numpy(dtype=np.float64).T
        steps = np.array([part.mean() for part in parts])
        return Curves(steps, values, self.run_ids, self.died)

    def ends(self) -> list[tuple[float, float]]:
        """(step, value) of the last record of every seed that died."""
        points = []
        for row, died in zip(self.values, self.died, strict=True):
            there = np.flatnonzero(~np.isnan(row))
            if died and len(there):
                points.append((float(self.steps[there[-1]]), float(row[there[-1]])))
        return points

    def _over_seeds(self, reduce: Callable[..., Array]) -> Array:
        out = np.full(len(self.steps), np.nan)
        shown = self.common() & np.asarray(~np.isnan(self.values).all(axis=0), dtype=np.bool_)
        if shown.any():
            out[shown] = reduce(self.values[:, shown], axis=0)
        return out


def curves_of(study: Study, group: Group, key: str, *, from_step: int = 0) -> Curves | None:
    """Metric `key` of every run of `group` that recorded it, or None when none did.

    Unfinished and failed runs are included: a curve shows what was seen.
    """
    if key not in study.metrics:
        return None
    members = study.runs[study.runs["group"] == group.label]
    # Narrow before choosing rows: a study has dozens of metrics, and a report asks for many curves.
    rows = study.metrics[["run_id", "step", key]].dropna(subset=[key])
    rows = rows[rows["run_id"].isin(members.index) & (rows["step"] >= from_step)]
    if rows.empty:
        return None
    table = rows.pivot(index="run_id", columns="step", values=key)
    run_ids = tuple(str(run_id) for run_id in members.index if run_id in table.index)
    return Curves(
        steps=table.columns.to_numpy(dtype=np.float64),
        values=table.loc[list(run_ids)].to_numpy(dtype=np.float64),
        run_ids=run_ids,
        died=tuple(str(members.loc[run_id, "status"]) == "FAILED" for run_id in run_ids),
    )


def cumulative(curves: Curves) -> Curves:
    """The same curves summed over steps; NaN entries add nothing before and stay NaN where they stand."""
    filled = np.where(np.isnan(curves.values), 0.0, curves.values)
    total = np.where(np.isnan(curves.values), np.nan, np.cumsum(filled, axis=1))
    return Curves(curves.steps, total, curves.run_ids, curves.died)

"""A metric of a group as curves over steps: one row per run, and their mean, median and band."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cppo_lab.analysis import statistics
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """One metric of one group.

    table: runs x steps, NaN where a run did not record the step. failed: by run, whether it failed, so that its curve
    ends early.
    """

    table: pd.DataFrame
    failed: pd.Series

    @property
    def n(self) -> int:
        return len(self.table)

    @property
    def steps(self) -> Array:
        """[S]."""
        return self.table.columns.to_numpy(dtype=np.float64)

    @property
    def values(self) -> Array:
        """[n, S]."""
        return self.table.to_numpy(dtype=np.float64)

    def mean(self) -> Array:
        """Mean over the runs that recorded each step, [S]; NaN at steps that do not count."""
        return self.table.mean().where(self._counts()).to_numpy(dtype=np.float64)

    def median(self) -> Array:
        """Median over the runs that recorded each step, [S]; NaN at steps that do not count."""
        return self.table.median().where(self._counts()).to_numpy(dtype=np.float64)

    def carried(self) -> Curves:
        """The same curves with every failed run continued at its last value.

        Otherwise the mean would rise when the worst run fails.
        """
        after_the_end = self.table.bfill(axis=1).isna()
        continued = self.table.ffill(axis=1).where(after_the_end, self.table)
        return replace(self, table=self.table.where(~self.failed, continued, axis=0))

    def band(self) -> tuple[Array, Array] | None:
        """Low and high [S] around the mean: Student's t 95% interval from three runs on, the range of two (their t
        interval is too wide to be of use), None for a single run.
        """
        if self.n < 2:
            return None
        ends = np.array([_interval(column[~np.isnan(column)]) for column in self.values.T])
        ends[~self._counts().to_numpy()] = np.nan
        return ends[:, 0], ends[:, 1]

    def binned(self, most: int) -> Curves:
        """The same curves on at most `most` points: neighbouring steps replaced by their median, per run."""
        if len(self.steps) <= most:
            return self
        parts = np.array_split(self.steps, most)
        bins = np.repeat([part.mean() for part in parts], [len(part) for part in parts])
        return replace(self, table=self.table.T.groupby(bins).median().T)

    def positive(self) -> Curves:
        """The same curves without what has no place on a logarithmic axis."""
        return replace(self, table=self.table.where(self.table > 0))

    def cumulative(self) -> Curves:
        """The same curves summed over steps; a step that was not recorded adds nothing and stays NaN."""
        return replace(self, table=self.table.cumsum(axis=1))

    def ends(self, along: Curves | None = None) -> list[tuple[float, float]]:
        """(step, value) of the last record of every failed run; its place on `along` instead of the step."""
        places = self.steps if along is None else along.at(self).values
        found = []
        for x, y in zip(
            np.broadcast_to(places, self.values.shape)[self.failed], self.values[self.failed], strict=True
        ):
            known = np.flatnonzero(~np.isnan(y))
            if len(known):
                found.append((float(x[known[-1]]), float(y[known[-1]])))
        return found

    def at(self, other: Curves) -> Curves:
        """These curves at the runs and steps that `other` recorded; NaN where either has nothing."""
        table = self.table.reindex_like(other.table)
        return replace(self, table=table.where(other.table.notna()), failed=other.failed)

    def _counts(self) -> pd.Series:
        """By step, whether its mean counts: where every run that got so far recorded it, or one that did not fail did.

        A step that only failing runs recorded has no mean. At a step where some runs had nothing to record (without an
        update there is no KL) the mean is that of the others.
        """
        recorded = self.table.notna()
        got_so_far = self.table.bfill(axis=1).notna()
        return (recorded.sum() >= got_so_far.sum()) | recorded[~self.failed].any()


def curves_of(study: Study, group: Group, key: str, *, from_step: int = 0) -> Curves | None:
    """Metric `key` of every run of `group` that recorded it; None when none did.

    Unfinished and failed runs are included.
    """
    if key not in study.metrics:
        return None
    members = study.runs[study.runs["group"] == group.label]
    # Narrow before choosing rows: a study has dozens of metrics, and a report asks for many curves.
    rows = study.metrics[["run_id", "step", key]].dropna(subset=[key])
    rows = rows[rows["run_id"].isin(members.index) & (rows["step"] >= from_step)]
    if rows.empty:
        return None
    table = rows.pivot(index="run_id", columns="step", values=key).astype(float)
    table = table.loc[[run_id for run_id in members.index if run_id in table.index]]
    return Curves(table, members.loc[table.index, "status"] == "FAILED")


def _interval(values: Array) -> tuple[float, float]:
    if len(values) < 2:
        return np.nan, np.nan
    if len(values) == 2:
        return float(values.min()), float(values.max())
    estimate = statistics.t_interval(values)
    return estimate.low, estimate.high

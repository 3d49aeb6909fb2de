"""Grids: the runs of one method on the settings that its sweep varies, a learning rate or a threshold.

The panel of a grid is that of its runs less the axes of the grid: in a sweep of algo x regime x learning rate, a method
has one grid in each regime.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cppo_lab.analysis.claims import Planned
from cppo_lab.analysis.formatting import tidy
from cppo_lab.analysis.grouping import METHOD_AXES, is_seed_axis, label_of, short_names
from cppo_lab.analysis.run_table import Array, Run, RunTable

RATE = "trainer.lr"
THRESHOLD = "threshold"
"""An axis of multiples of each method's own main threshold."""
EPOCHS = "trainer.epochs"


@dataclass(frozen=True, eq=False)
class Grid:
    """The runs of `method` in `panel`, at `points` [settings, axes] of the axes, in the order of rising values.

    runs: by seed and setting, one row for each of `pairs` (seeds and starting policy). A setting that less than half
    of the seeds have is left out, and then every seed that lacks another one: `left_out` seeds. `elsewhere` holds the
    values on the other axes.
    """

    panel: str
    method: str
    axes: tuple[str, ...]
    points: Array
    pairs: tuple[tuple[str, str], ...]
    runs: tuple[tuple[Run, ...], ...]
    left_out: int
    elsewhere: Mapping[str, str]

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.pairs)

    def values(self, score: str) -> Array:
        """A score of every run, [seeds, settings]."""
        return np.array([[run.score(score) for run in row] for row in self.runs], dtype=np.float64)

    def on(self, pairs: Sequence[tuple[str, str]]) -> Grid:
        """The same grid on some of its seeds, in their order."""
        rows = dict(zip(self.pairs, self.runs, strict=True))
        return replace(self, pairs=tuple(pairs), runs=tuple(rows[pair] for pair in pairs))

    def point(self, index: int) -> str:
        """A setting in words: `lr=1e-4, delta=0.15`."""
        short = short_names(self.axes)
        return ", ".join(
            f"{short[axis]}={value_text(value)}"
            for axis, value in zip(self.axes, self.points[index], strict=True)
        )


def value_text(value: float) -> str:
    """A value of an axis as it is written in figures and tables."""
    return tidy(f"{value:.4g}")


def tuning_axes(runs: Iterable[Planned | Run]) -> tuple[str, ...]:
    """The axes on which a method has a best setting: the learning rate, thresholds and other numbers of `algo`.

    Such an axis has two positive numbers or more; a method that it does not concern may have no number on it.
    """
    values: dict[str, set[float]] = {}
    for run in runs:
        for axis, text in run.axes.items():
            if axis in (RATE, THRESHOLD) or axis.startswith("algo."):
                values.setdefault(axis, set()).add(_number(text))
    numbers = {axis: [value for value in met if not math.isnan(value)] for axis, met in values.items()}
    return tuple(axis for axis, met in numbers.items() if len(met) > 1 and min(met) > 0)


def grids(
    table: RunTable, tuned: Sequence[str] | None = None, names: Mapping[str, str] | None = None
) -> list[Grid]:
    """Every method's grid over the axes `tuned` (all tuning axes) in every panel, in the order of the table.

    names: the algorithm of each run id, for a study without an axis of algorithms. None without an axis to tune.
    """
    tuned = tuning_axes(table.runs) if tuned is None else tuned
    members: dict[tuple[str, str], list[Run]] = {}
    for run in table.runs if tuned else ():
        members.setdefault((panel_less(run, tuned), method_of(run, names)), []).append(run)
    order = list(dict.fromkeys(panel for panel, _ in members))
    made = [grid_of(panel, method, tuned, runs) for (panel, method), runs in members.items()]
    return sorted((grid for grid in made if grid.n), key=lambda grid: order.index(grid.panel))


def method_of(run: Planned | Run, names: Mapping[str, str] | None = None) -> str:
    """The algorithm of a run, which in a study of one algorithm is not the name of its group."""
    named = next((run.axes[axis] for axis in METHOD_AXES if axis in run.axes), None)
    if named is not None:
        return label_of(named)
    return (names or {}).get(getattr(run, "run_id", ""), run.method)


def panel_less(run: Planned | Run, axes: Sequence[str]) -> str:
    """The panel of a run without its values on these axes."""
    # In a study of one algorithm, it is the method that tells the settings apart.
    place = run.panel if run.method == method_of(run) and run.panel else run.method
    gone = {
        f"{name}={label_of(tidy(run.axes[axis]))}"
        for axis in axes
        if axis in run.axes
        for name in (axis, *short_names([axis]).values())
    }
    return ", ".join(part for part in place.split(", ") if part not in gone)


def shared_pairs(*found: Grid) -> list[tuple[str, str]]:
    """The seeds and starting policies that all these grids have, in the order of the first."""
    return [pair for pair in found[0].pairs if all(pair in other.pairs for other in found[1:])]


def grid_of(panel: str, method: str, tuned: Sequence[str], runs: Sequence[Run]) -> Grid:
    """The grid of these runs of a method over the axes `tuned`."""
    axes = tuple(axis for axis in tuned if len({_number(run.axes.get(axis, "")) for run in runs}) > 1)
    by_place = {(run.pair, tuple(_number(run.axes[axis]) for axis in axes)): run for run in runs}
    pairs = list(dict.fromkeys(pair for pair, _ in by_place))
    points = sorted({point for _, point in by_place})
    kept = [point for point in points if 2 * sum((pair, point) in by_place for pair in pairs) >= len(pairs)]
    complete = [pair for pair in pairs if all((pair, point) in by_place for point in kept)]
    return Grid(
        panel=panel,
        method=method,
        axes=axes,
        points=np.array(kept, dtype=np.float64).reshape(len(kept), len(axes)),
        pairs=tuple(complete),
        runs=tuple(tuple(by_place[pair, point] for point in kept) for pair in complete),
        left_out=len(pairs) - len(complete),
        elsewhere={
            axis: value
            for axis, value in runs[0].axes.items()
            if axis not in tuned and not is_seed_axis(axis)
        },
    )


def _number(text: str) -> float:
    """NaN for what is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan

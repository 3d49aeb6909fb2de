"""Profiles by relative position in the response: their rows, their means, and maps of them over steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from cppo_lab.analysis.figures import CannotDraw, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study

Array = npt.NDArray[np.float64]


def relative_profiles(study: Study, group: Group) -> pd.DataFrame:
    """The bins of all runs of a group: one row per run, step and bin."""
    members = study.runs.index[study.runs["group"] == group.label]
    rows = study.profiles[study.profiles["kind"] == "relative"]
    return rows[rows["run_id"].isin(members)]


def mean_by_position(profiles: pd.DataFrame, column: str) -> tuple[Array, Array]:
    """Bin centres [bins] and mean of `column` over runs and steps [bins], weighted by tokens in the bin."""
    means = _weighted_mean(profiles, column, ["low", "high"]).reset_index()
    centres = (means["low"] + means["high"]) / 2
    return centres.to_numpy(dtype=np.float64), means[0].to_numpy(dtype=np.float64)


def mean_by_position_and_step(profiles: pd.DataFrame, column: str) -> tuple[Array, Array, Array]:
    """Steps [S], edges of the positions [bins + 1] and means over runs [bins, S], weighted by tokens; NaN where no
    token fell.
    """
    table = _weighted_mean(profiles, column, ["low", "step"]).unstack("step").sort_index()
    edges = np.append(table.index.to_numpy(dtype=np.float64), 1.0)
    return table.columns.to_numpy(dtype=np.float64), edges, table.to_numpy(dtype=np.float64)


def map_of_positions(
    data: FigureData, column: str, label: str, written: Callable[[float], str], nothing: str
) -> Figure:
    """One map per method of `column` over position and step, on one logarithmic scale; `written`: its tick labels.

    Methods for which it is zero throughout are left out. Raises CannotDraw with `nothing` when none is left.
    """
    maps = {}
    for group in data.groups:
        found = mean_by_position_and_step(relative_profiles(data.study, group), column)
        if found[2].size and np.nanmax(found[2]) > 0:
            maps[group] = found
    if not maps:
        raise CannotDraw(nothing)
    scale = _scale(np.concatenate([values.ravel() for _, _, values in maps.values()]))
    figure, grid = style.small_multiples(len(maps), 4, 2.6, 2.3, (1.2, 0.5), sharex=True, sharey=True)
    columns = min(4, len(maps))
    for index, (axes, (group, found)) in enumerate(zip(grid, maps.items(), strict=True)):
        _map(axes, group, found, scale)
        if index % columns == 0:
            axes.set_ylabel("position in response")
        if index + columns >= len(maps):
            axes.set_xlabel("training step")
            axes.tick_params(labelbottom=True)
    mappable = ScalarMappable(scale, style.SEQUENTIAL)
    shrink = 0.9 if len(maps) <= columns else 0.6
    bar = figure.colorbar(mappable, ax=figure.axes, label=label, shrink=shrink, pad=0.015)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return figure


def _weighted_mean(profiles: pd.DataFrame, column: str, keys: list[str]) -> pd.Series:
    rows = profiles.dropna(subset=[column])
    rows = rows[rows["count"].fillna(0) > 0]
    sums = rows.assign(weighted=rows[column] * rows["count"]).groupby(keys)[["weighted", "count"]].sum()
    return sums["weighted"] / sums["count"]


def _scale(values: Array) -> LogNorm:
    """Down to the smallest value, but no further than MOST_DECADES; all below it, and zero, is lightest."""
    positive = values[np.isfinite(values) & (values > 0)]
    high = float(positive.max())
    return LogNorm(max(min(float(positive.min()), high / 10), high / 10**style.MOST_DECADES), high, clip=True)


def _map(axes: Axes, group: Group, found: tuple[Array, Array, Array], scale: LogNorm) -> None:
    steps, edges, values = found
    axes.pcolormesh(
        style.cell_edges(steps),
        edges,
        np.ma.masked_invalid(np.maximum(values, float(scale.vmin or 0.0))),
        norm=scale,
        cmap=style.SEQUENTIAL,
        rasterized=True,
    )
    axes.set_title(group.method)
    axes.grid(visible=False)
    axes.set_ylim(0.0, 1.0)
    style.position_axis(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))

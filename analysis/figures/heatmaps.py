"""Divergence and masking over position in the response and training step, one map per method."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study

COLUMNS = 4
Array = npt.NDArray[np.float64]


def divergence_map(study: Study, panel: str) -> Figure | None:
    """Mean divergence by relative position and step, on one logarithmic scale for all methods."""
    return _maps(study, panel, "divergence_mean", "mean divergence D", lambda value: f"{value:g}")


def masking_map(study: Study, panel: str) -> Figure | None:
    """Share of tokens masked by relative position and step, on one logarithmic scale; methods that mask nothing are
    left out.
    """
    return _maps(
        study, panel, "masked_share", "tokens masked", lambda share: style.percent_label(share, share)
    )


def _maps(
    study: Study, panel: str, column: str, label: str, written: Callable[[float], str]
) -> Figure | None:
    maps = {
        group: found
        for group in study.grouping.in_panel(panel)
        if (found := cells(study, group, column)) is not None and np.nanmax(found[2]) > 0
    }
    if not maps:
        return None
    scale = _scale(np.concatenate([values.ravel() for _, _, values in maps.values()]))
    columns = min(COLUMNS, len(maps))
    rows = math.ceil(len(maps) / columns)
    with style.house_style():
        figure = style.sheet(2.6 * columns + 1.2, 2.3 * rows + 0.5)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, (group, found) in zip(grid.flat, maps.items(), strict=False):
            _map(axes, group, found, scale)
        for axes in grid.flat[len(maps) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("position in response")
        for index in range(len(maps)):
            if index + columns >= len(maps):
                grid.flat[index].set_xlabel("training step")
                grid.flat[index].tick_params(labelbottom=True)
        bar = figure.colorbar(
            ScalarMappable(scale, style.SEQUENTIAL),
            ax=grid,
            label=label,
            shrink=0.9 if rows == 1 else 0.6,
            pad=0.015,
        )
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        return figure


def cells(study: Study, group: Group, column: str) -> tuple[Array, Array, Array] | None:
    """Steps [S], edges of the positions [bins + 1] and values [bins, S] of a method, over its seeds weighted by
    tokens; NaN where no token fell. None where nothing was recorded.
    """
    members = study.runs.index[study.runs["group"] == group.label]
    profiles = study.profiles
    rows = profiles[profiles["run_id"].isin(members) & (profiles["kind"] == "relative")]
    rows = rows.dropna(subset=[column])
    rows = rows[rows["count"].fillna(0) > 0]
    if rows.empty:
        return None
    weighted = rows.assign(weighted=rows[column] * rows["count"])
    sums = weighted.groupby(["low", "step"])[["weighted", "count"]].sum()
    table: pd.DataFrame = (sums["weighted"] / sums["count"]).unstack("step").sort_index()
    edges = np.append(table.index.to_numpy(dtype=np.float64), 1.0)
    return table.columns.to_numpy(dtype=np.float64), edges, table.to_numpy(dtype=np.float64)


def _scale(values: Array) -> LogNorm:
    """Down to the smallest value, but no further than MOST_DECADES; all below it, and zero, is lightest."""
    positive = values[np.isfinite(values) & (values > 0)]
    high = float(positive.max())
    return LogNorm(max(min(float(positive.min()), high / 10), high / 10**style.MOST_DECADES), high, clip=True)


def _map(axes: Axes, group: Group, found: tuple[Array, Array, Array], scale: LogNorm) -> None:
    steps, edges, values = found
    lightest = float(scale.vmin or 0.0)
    axes.pcolormesh(
        style.cell_edges(steps),
        edges,
        np.ma.masked_invalid(np.maximum(values, lightest)),
        norm=scale,
        cmap=style.SEQUENTIAL,
        rasterized=True,
    )
    axes.set_title(group.method)
    axes.grid(visible=False)
    axes.set_ylim(0.0, 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))

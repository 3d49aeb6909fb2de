"""Rows of estimates in axes: a mean with its interval, and the single values as ticks above it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.looks import PAPER, Look
from cppo_lab.analysis.statistics import Estimate


def rows_of_panels(sizes: Sequence[int], height: float) -> tuple[Figure, Iterator[Axes]]:
    """A figure with axes below each other that share their horizontal axis, for so many rows each; only the last one's
    ticks are labelled.
    """
    figure = style.sheet(8.2, 0.85 + sum(height * size + 0.5 for size in sizes))
    ratios = [size + 0.7 for size in sizes]
    grid = figure.subplots(len(sizes), 1, squeeze=False, sharex=True, height_ratios=ratios)
    return figure, grid.flat


def draw_estimate(
    axes: Axes, estimate: Estimate, y: float, look: Look, low: float, high: float, *, filled: bool = True
) -> None:
    """The mean as a marker and its interval as a bar, cut to low..high; hollow and thin unless `filled`."""
    if estimate.shows_interval:
        axes.plot(
            [max(low, estimate.low), min(high, estimate.high)],
            [y, y],
            color=look.color,
            linewidth=2.4 if filled else 1.0,
            alpha=0.9 if estimate.n > 2 else 0.4,
            zorder=3,
        )
    axes.plot(
        estimate.mean,
        y,
        marker=look.marker,
        markersize=(1.25 if filled else 1.0) * look.size,
        color=look.color if filled else PAPER,
        markeredgecolor=PAPER if filled else look.color,
        markeredgewidth=0.8 if filled else 1.2,
        zorder=4,
    )


def draw_ticks(axes: Axes, values: Sequence[float], y: float, look: Look) -> None:
    """Single values as ticks."""
    axes.plot(
        values,
        np.full(len(values), y),
        linestyle="none",
        marker="|",
        color=look.color,
        markersize=5,
        markeredgewidth=1.1,
        alpha=0.75,
    )

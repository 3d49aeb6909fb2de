"""Mean divergence over position in the response and training step, one map per method."""

from __future__ import annotations

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import figure
from cppo_lab.analysis.figures.data import PROFILES, FigureData
from cppo_lab.analysis.figures.profiles import map_of_positions


@figure(
    "divergence_map",
    title="Divergence by position and step",
    section="mechanisms",
    caption="Mean divergence of the tokens at each relative position and training step, over seeds, weighted by "
    "tokens. All methods share one logarithmic scale. The divergence is the method's own, or |π − μ| of "
    "the sampled token for a method without one.",
    about="mean divergence over position and step",
    needs=(PROFILES,),
    per_panel=True,
    place=4,
)
def draw(data: FigureData) -> Figure:
    """One map per method."""
    return map_of_positions(
        data,
        "divergence_mean",
        "mean divergence D",
        lambda value: f"{value:g}",
        nothing="no run recorded a divergence above zero",
    )

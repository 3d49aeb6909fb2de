"""Share of tokens masked over position in the response and training step, one map per method that masks any."""

from __future__ import annotations

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import figure, style
from cppo_lab.analysis.figures.data import PROFILES, FigureData
from cppo_lab.analysis.figures.profiles import map_of_positions


@figure(
    "masking_map",
    title="Masking by position and step",
    section="mechanisms",
    caption="Share of the tokens masked at each relative position and training step, over seeds, weighted by "
    "tokens. Methods that mask nothing are left out.",
    about="share of tokens masked over position and step",
    needs=(PROFILES,),
    per_panel=True,
    place=5,
)
def draw(data: FigureData) -> Figure:
    """One map per method that masked a token."""
    return map_of_positions(
        data,
        "masked_share",
        "tokens masked",
        lambda share: style.percent_label(share, share),
        nothing="no method masked a token",
    )

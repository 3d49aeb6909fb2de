"""Every method against plain policy gradient at a smaller step."""

from __future__ import annotations

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import DoesNotApply, figure
from cppo_lab.analysis.figures.control_rows import control_figure
from cppo_lab.analysis.figures.data import FigureData


@figure(
    "control",
    title="What is left beyond a smaller step",
    section="step_size",
    caption="Final accuracy ({final}) less that of plain policy gradient. Open circles: both at the largest "
    "learning rate that both were tried at, as in a comparison at one rate. Diamonds: each at its best "
    "setting, chosen by other seeds than those compared. Squares: plain policy gradient at the rate that "
    "moves the policy as far per rollout (median KL). A method is credited with what it adds to the best "
    "of these controls, the open circles aside. Bars are 95% intervals, and two seeds alone are ticks; the "
    "grey band is three points to each side of zero.",
    about="difference from plain policy gradient at one learning rate, each at its best, and at the same KL",
    place=3,
)
def draw(data: FigureData) -> Figure:
    """One row per method, most credited first."""
    known = data.summary.step_size
    if known is None or not known.controls:
        raise DoesNotApply("no sweep over the learning rate has plain policy gradient in it")
    return control_figure(known.controls, data.looks)

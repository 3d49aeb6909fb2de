"""Final accuracy over the learning rate, with what explains it."""

from __future__ import annotations

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import DoesNotApply, figure
from cppo_lab.analysis.figures.axis_curves import rate_figure
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.grids import RATE


@figure(
    "sensitivity",
    title="Final accuracy over the learning rate",
    section="step_size",
    caption="Final accuracy ({final}) at every learning rate tried, means over seeds; bands are 95% Student t "
    "intervals (none for more than six methods), dashes the seeds where there are only two. Rings mark each "
    "method's best rate, the dashed line the lab's default. Below: the difference from plain policy gradient "
    "at the same rate, which is what a comparison at one rate shows, and the median KL from the rollout policy "
    "per step, which is how far the policy moves.",
    about="final accuracy, difference from plain policy gradient and median KL over the learning rate",
    place=1,
)
def draw(data: FigureData) -> Figure:
    """One column of axes per panel."""
    known = data.summary.step_size
    if known is None or not known.along(RATE):
        raise DoesNotApply("no method has three or more learning rates")
    return rate_figure(known, data.looks)

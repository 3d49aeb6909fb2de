"""Final accuracy and masking over a threshold."""

from __future__ import annotations

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import DoesNotApply, figure
from cppo_lab.analysis.figures.axis_curves import threshold_figure
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.grids import RATE


@figure(
    "threshold_sensitivity",
    title="Final accuracy over the threshold",
    section="step_size",
    caption="Final accuracy ({final}) at every threshold tried, means over seeds; bands are 95% Student t "
    "intervals (none for more than six methods), dashes the seeds where there are only two. Rings mark each "
    "method's best setting, upright dashes its published one; the dashed line is plain policy gradient, which "
    "has none. Below: the share of tokens that the rule masks.",
    about="final accuracy and masked share over a threshold, such as delta or the size of a budget",
    place=2,
)
def draw(data: FigureData) -> Figure:
    """One column of axes per panel, for the first such axis of the study."""
    known = data.summary.step_size
    axes = [axis for axis in known.axes if axis != RATE] if known else []
    if known is None or not axes:
        raise DoesNotApply("no method has three or more thresholds")
    return threshold_figure(known, axes[0], data.looks)

"""The figures of a report: those of the lab (in `gallery/`) and of plug-ins, all registered by `figure`."""

from cppo_lab.analysis.figures.registry import CannotDraw, DoesNotApply, Drawing, figure

__all__ = ["CannotDraw", "DoesNotApply", "Drawing", "figure"]

"""Draws a figure of the report for a test."""

from __future__ import annotations

from matplotlib.figure import Figure

from cppo_lab.analysis.figures.data import FigureData, draw_figure
from cppo_lab.analysis.figures.registry import load_figures
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.summary import summarise


def data_of(study: Study, panel: str | None = None) -> FigureData:
    """What the figures of a study are drawn from; with a panel, those that each panel has."""
    return FigureData(study, summarise(study), panel)


def drawn(name: str, study: Study, panel: str | None = None) -> Figure:
    """The figure of that name. Raises CannotDraw as the report's figures do."""
    return draw_figure(load_figures()[name], data_of(study, panel)).figure

"""The figures of a report by name.

Imports neither matplotlib nor pandas: sweep files are checked against these names, and a plug-in with figures is loaded
by every training process.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from cppo_lab.errors import one_of
from cppo_lab.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cppo_lab.analysis.figures.data import FigureData

Draw: TypeAlias = "Callable[[FigureData], Figure | Drawing]"
Section = Literal["accuracy", "step_size", "stability", "mechanisms"]
SECTIONS: tuple[Section, ...] = get_args(Section)
LAST = 100
"""The place of a figure that names none: after those of the lab."""
_GALLERY = "cppo_lab.analysis.figures.gallery"


class CannotDraw(Exception):
    """The runs lack what the figure shows; the message says what, such as "no run has finished"."""


class DoesNotApply(CannotDraw):
    """The study does not ask what the figure shows; the report leaves it out."""


@dataclass(frozen=True)
class Drawing:
    """A figure, and sentences about these runs to add to its caption."""

    figure: Figure
    note: str = ""


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report.

    caption: may hold {band}, {seeds}, {failures}, {final} and {window}, which the report fills in
        (`page/phrases.py`). needs: metrics, or "profiles", that at least one run must have recorded.
    per_panel: drawn once for each panel of a study instead of once for all. place: its order within the section.
    axes: the horizontal axes to choose from (keys of `analysis/spent.py`), if there is a choice.
    """

    title: str
    section: Section
    caption: str
    draw: Draw
    needs: tuple[str, ...]
    per_panel: bool
    place: int
    axes: tuple[str, ...] = ()


FIGURES: Registry[ReportFigure] = Registry("figure")


def figure(
    name: str,
    *,
    title: str,
    section: Section,
    caption: str,
    about: str,
    needs: tuple[str, ...] = (),
    paper: str | None = None,
    per_panel: bool = False,
    place: int = LAST,
    axes: tuple[str, ...] = (),
) -> Callable[[Draw], Draw]:
    """A decorator that adds a function to the report's figures; see ReportFigure for the arguments.

    The function is called in the house style when a run has recorded what the figure needs, and raises CannotDraw
    where the runs lack something else; the report then gives the reason in place of the figure.
    about: a few words for the table in docs/report.md. paper: the figure of the paper that it repeats.
    Raises ValueError for a name that is taken or cannot name a file, and for an unknown section.
    """
    if not name.isidentifier():
        raise ValueError(f"figure {name!r}: must be letters, digits and underscores, for it names files")
    if section not in SECTIONS:
        raise ValueError(f"figure {name!r}: section {section!r}: allowed are {', '.join(SECTIONS)}")

    def add(draw: Draw) -> Draw:
        part = ReportFigure(title, section, caption, draw, needs, per_panel, place, axes)
        FIGURES.register(name, about=about, paper=paper, origin=draw.__module__)(part)
        return draw

    return add


def load_figures() -> Registry[ReportFigure]:
    """All figures: the lab's, imported here, and those of the plug-ins that were loaded before."""
    for name in _in_gallery():
        importlib.import_module(f"{_GALLERY}.{name}")
    return FIGURES


def figure_names() -> list[str]:
    """The names of all figures, without importing those of the lab."""
    return list(dict.fromkeys([*_in_gallery(), *FIGURES]))


def check_figure(where: str, name: str | None) -> None:
    """Raise UserError when `name` is given and names no figure; `where` says who names it."""
    if name is not None and name not in figure_names():
        raise one_of(f"{where}: figure", name, figure_names())


def _in_gallery() -> list[str]:
    return [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "gallery")])]

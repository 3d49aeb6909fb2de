"""The figures of a study with their captions, in page order."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import CannotDraw, DoesNotApply
from cppo_lab.analysis.figures.data import FigureData, draw_figure
from cppo_lab.analysis.figures.registry import SECTIONS, ReportFigure, load_figures
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.phrases import filled_in
from cppo_lab.analysis.single_rates import folded_panels
from cppo_lab.analysis.spent import AXES, DEFAULT_AXIS, SpentAxis
from cppo_lab.analysis.summary import Summary
from cppo_lab.errors import UserError, one_of
from cppo_lab.registry import Entry

MOST_SLUG = 48


@dataclass(frozen=True)
class Exhibit:
    """A figure with its place on the page; `figure` is None where it cannot be drawn, and the caption says why.

    axis: what it is drawn over. views: the figure over all axes that there is a choice of on the page, this one too.
    panel: what it is of, in a study of several where it is of one. folded: it is of panels that the page folds away.
    """

    name: str
    section: str
    title: str
    caption: str
    figure: Figure | None
    axis: SpentAxis = AXES[DEFAULT_AXIS]
    views: tuple[View, ...] = ()
    panel: str | None = None
    folded: bool = False


@dataclass(frozen=True)
class View:
    """A figure over one of several horizontal axes; `name` is that of its file, were it in one."""

    name: str
    axis: SpentAxis
    figure: Figure


def exhibits(
    study: Study,
    summary: Summary,
    axis: str = DEFAULT_AXIS,
    *,
    with_views: bool = False,
    all_panels: bool = False,
) -> list[Exhibit]:
    """Every figure of the report in page order, those of loaded plug-ins included.

    Neighbouring figures that each panel has of its own come panel by panel. axis: the horizontal axis of figures that
    have a choice; with_views: draw them over the others as well. Nothing is drawn of panels that are folded away
    (`single_rates`) unless `all_panels`, since figures take most of a report's time. Raises UserError for an axis that
    is unknown, or that no run has anything to place on.
    """
    if axis not in AXES:
        raise one_of("--axis", axis, AXES)
    folded = folded_panels(summary)
    data = FigureData(study, summary, axis=AXES[axis])
    if not folded:
        return _drawn(data, with_views)
    found = _drawn(data.of_panels([panel for panel in data.panels if panel not in folded]), with_views)
    if all_panels:
        rest = _drawn(data.of_panels(folded), with_views=False, leave_out=("step_size",))
        found += [_as_folded(exhibit) for exhibit in rest]
    return found


def _drawn(data: FigureData, with_views: bool, leave_out: Sequence[str] = ()) -> list[Exhibit]:
    """The figures of the panels of `data`, but for those of some sections."""
    entries = sorted(
        (entry for entry in load_figures().entries() if entry.part.section not in leave_out),
        key=lambda entry: (SECTIONS.index(entry.part.section), entry.part.place),
    )
    found: list[Exhibit] = []
    for (_, per_panel), block in groupby(entries, lambda entry: (entry.part.section, entry.part.per_panel)):
        neighbours = list(block)
        for shown in map(data.of_panel, data.panels) if per_panel else (data,):
            made = [_exhibit(entry, shown, with_views) for entry in neighbours]
            found += [exhibit for exhibit in made if exhibit is not None]
    return found


def _as_folded(exhibit: Exhibit) -> Exhibit:
    """The same figure as one of folded panels; a figure of several panels has a name of its own."""
    is_of_one = exhibit.panel is not None
    name = exhibit.name if is_of_one else f"{exhibit.name}-other-rates"
    title = exhibit.title if is_of_one else f"{exhibit.title}, at the other rates"
    return replace(exhibit, name=name, title=title, folded=True)


def _exhibit(entry: Entry[ReportFigure], data: FigureData, with_views: bool) -> Exhibit | None:
    """The figure, or why it cannot be drawn; None where the study does not ask what it shows."""
    part, name, title = entry.part, entry.name.replace("_", "-"), entry.part.title
    panel = data.panel if len(data.study.grouping.panels) > 1 else None
    if panel is not None:
        name, title = f"{name}-{_slug(panel)}", f"{title}, {panel}"
    try:
        drawing = draw_figure(part, data)
    except DoesNotApply:
        return None
    except CannotDraw as reason:
        if part.axes and data.axis.key != DEFAULT_AXIS:
            raise UserError(f"--axis {data.axis.key}: {reason}.") from reason
        return Exhibit(name, part.section, title, f"Cannot be drawn: {reason}.", None, panel=panel)
    said = [filled_in(part.caption, data), f"Compare {entry.paper}." if entry.paper else "", drawing.note]
    views = _views(part, data, name, drawing.figure) if with_views and part.axes else ()
    axis = data.axis if part.axes else AXES[DEFAULT_AXIS]
    caption = " ".join(filter(None, said))
    return Exhibit(name, part.section, title, caption, drawing.figure, axis, views, panel=panel)


def _views(part: ReportFigure, data: FigureData, name: str, drawn: Figure) -> tuple[View, ...]:
    """The figure over every axis that the runs have something to place on; `drawn` is over the axis in use."""
    found = []
    for key in part.axes:
        if key == data.axis.key:
            found.append(View(name, data.axis, drawn))
            continue
        try:
            found.append(View(f"{name}-{key}", AXES[key], draw_figure(part, data.over(AXES[key])).figure))
        except CannotDraw:
            # What no run has recorded is no choice.
            continue
    return tuple(found)


def _slug(text: str) -> str:
    """A short file name for a panel; a long one is cut and told apart by a checksum."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "all"
    return slug if len(slug) <= MOST_SLUG else f"{slug[:MOST_SLUG]}-{zlib.crc32(text.encode()):08x}"

"""The figures of a study with their captions, in page order."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from itertools import groupby

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import CannotDraw, DoesNotApply
from cppo_lab.analysis.figures.data import FigureData, draw_figure
from cppo_lab.analysis.figures.registry import SECTIONS, ReportFigure, load_figures
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.phrases import filled_in
from cppo_lab.analysis.summary import Summary
from cppo_lab.registry import Entry

MOST_SLUG = 48


@dataclass(frozen=True)
class Exhibit:
    """A figure with its place on the page; `figure` is None where it cannot be drawn, and the caption says why."""

    name: str
    section: str
    title: str
    caption: str
    figure: Figure | None


def exhibits(study: Study, summary: Summary) -> list[Exhibit]:
    """Every figure of the report in page order, those of loaded plug-ins included.

    Neighbouring figures that each panel has of its own come panel by panel.
    """
    entries = sorted(
        load_figures().entries(), key=lambda entry: (SECTIONS.index(entry.part.section), entry.part.place)
    )
    data = FigureData(study, summary)
    found: list[Exhibit] = []
    for (_, per_panel), block in groupby(entries, lambda entry: (entry.part.section, entry.part.per_panel)):
        neighbours = list(block)
        for shown in map(data.of_panel, study.grouping.panels) if per_panel else (data,):
            made = [_exhibit(entry, shown) for entry in neighbours]
            found += [exhibit for exhibit in made if exhibit is not None]
    return found


def _exhibit(entry: Entry[ReportFigure], data: FigureData) -> Exhibit | None:
    """The figure, or why it cannot be drawn; None where the study does not ask what it shows."""
    part, name, title = entry.part, entry.name.replace("_", "-"), entry.part.title
    if data.panel is not None and len(data.study.grouping.panels) > 1:
        name, title = f"{name}-{_slug(data.panel)}", f"{title}, {data.panel}"
    try:
        drawing = draw_figure(part, data)
    except DoesNotApply:
        return None
    except CannotDraw as reason:
        return Exhibit(name, part.section, title, f"Cannot be drawn: {reason}.", None)
    said = [filled_in(part.caption, data), f"Compare {entry.paper}." if entry.paper else "", drawing.note]
    return Exhibit(name, part.section, title, " ".join(filter(None, said)), drawing.figure)


def _slug(text: str) -> str:
    """A short file name for a panel; a long one is cut and told apart by a checksum."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "all"
    return slug if len(slug) <= MOST_SLUG else f"{slug[:MOST_SLUG]}-{zlib.crc32(text.encode()):08x}"

"""Renders figures: PNG and PDF for files, SVG for the page, whose theme sets its colours."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.looks import DARK

PNG_DPI = 200
# Above this size an inline SVG is slower in a browser than a bitmap.
MOST_SVG_BYTES = 1_500_000


@dataclass(frozen=True)
class Rendered:
    """One figure in the requested formats; None for the others."""

    name: str
    png: bytes | None
    pdf: bytes | None
    markup: str | None


def render(name: str, figure: Figure, *, png: bool, pdf: bool, page: bool, mark: str = "") -> Rendered:
    """Lay the figure out once and render the requested formats; `page`: markup to put into HTML.

    mark: a warning to write in a strip below the figure, in every format.
    """
    with style.house_style():
        figure.draw_without_rendering()
        # The layout is final; solving it again for every format would only take time.
        figure.set_layout_engine("none")
        area = style.stamp(figure, mark) if mark else None
        picture = _saved(figure, "png", area, dpi=PNG_DPI) if png else None
        document = _saved(figure, "pdf", area, metadata={"CreationDate": None}) if pdf else None
        markup = None
        if page:
            vector = _saved(figure, "svg", area, metadata={"Date": None, "Creator": None}).decode("utf-8")
            if len(vector) <= MOST_SVG_BYTES:
                markup = inline_svg(vector)
            else:
                pixels = picture or _saved(figure, "png", area, dpi=PNG_DPI)
                encoded = base64.b64encode(pixels).decode("ascii")
                markup = f'<img alt="" src="data:image/png;base64,{encoded}">'
    return Rendered(name, picture, document, markup)


def inline_svg(document: str) -> str:
    """An SVG document as an HTML element, its house colours replaced by CSS variables for dark mode."""
    start = document.index("<svg")
    svg = document[start:]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", '<svg aria-hidden="true"', 1)
    svg = re.sub(r'(fill|stroke)="(#[0-9a-f]{6})"', r'style="\1: \2"', svg)
    return re.sub(r": (#[0-9a-f]{6})\b", lambda match: f": {variable(match.group(1))}", svg)


def variable(color: str) -> str:
    """CSS reference to a house colour; any other colour unchanged."""
    return f"var(--c-{color[1:]}, {color})" if color in DARK else color


def palette_css(dark: bool) -> str:
    """CSS declarations of all house colours for one theme."""
    return "".join(f"--c-{light[1:]}:{night if dark else light};" for light, night in DARK.items())


def _saved(figure: Figure, kind: str, area: Bbox | None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, bbox_inches=area, **options)
    return buffer.getvalue()

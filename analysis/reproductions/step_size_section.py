"""The part of a sweep over learning rates or thresholds on the page of reproductions: what is left beyond a smaller
step.

In place of curves over training steps and a table of methods, which such a sweep has for every setting.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.axis_curves import rate_figure, threshold_figure
from cppo_lab.analysis.figures.control_rows import control_figure
from cppo_lab.analysis.figures.looks import looks_of
from cppo_lab.analysis.grids import RATE
from cppo_lab.analysis.page.step_size_tables import step_size_tables
from cppo_lab.analysis.reproductions.items import Item
from cppo_lab.analysis.step_size_text import HEADING, control_sentences, explained


def step_size_figures(item: Item) -> dict[str, tuple[str, Figure]]:
    """The alternative text and the figure by the name of its file; none for an item without such axes."""
    known = item.step_size
    if known is None:
        return {}
    looks = looks_of(item.table.methods())
    found: dict[str, tuple[str, Figure]] = {}
    with style.house_style():
        if known.along(RATE):
            found["rates"] = "final accuracy over the learning rate", rate_figure(known, looks)
        for axis in known.axes:
            if axis != RATE:
                figure = threshold_figure(known, axis, looks)
                found[axis.split(".")[-1]] = f"final accuracy over {axis}", figure
        if known.controls:
            found["control"] = "what is left beyond a smaller step", control_figure(known.controls, looks)
    return {f"{item.sweep.slug}-{name}": figure for name, figure in found.items()}


def step_size_lines(item: Item, images: str) -> list[str]:
    """Sentences, pictures and tables in Markdown."""
    known = item.step_size
    if known is None:
        return []
    lines = [f"### {HEADING}", ""] if known.controls else []
    for panel, sentences in control_sentences(known):
        lines += [*([f"**{panel}**", ""] if panel else []), *(f"- {sentence}" for sentence in sentences), ""]
    for name, (text, _) in step_size_figures(item).items():
        lines += [f"![{item.sweep.title}: {text}]({images}/{name}.png)", ""]
    for table in step_size_tables(known):
        headers = [header for header, _ in table.columns]
        lines += [table.caption, "", _line(headers), _line(["---"] * len(headers))]
        lines += [*(_line([cell.text for cell in row]) for row in table.rows), ""]
    return [*lines, *(f"- {note}" for note in explained(known)), ""]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

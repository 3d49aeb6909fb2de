"""The part of a sweep over learning rates or thresholds on the page of reproductions: what is left beyond a smaller
step.

In place of curves over training steps and a table of methods, which such a sweep has for every setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.axis_curves import rate_figure, threshold_figure
from cppo_lab.analysis.figures.control_rows import control_figure
from cppo_lab.analysis.figures.looks import looks_of
from cppo_lab.analysis.grids import RATE, value_text
from cppo_lab.analysis.page.step_size_tables import step_size_tables
from cppo_lab.analysis.reproductions.items import Item
from cppo_lab.analysis.step_size_text import HEADING, control_sentences, explained
from cppo_lab.sweeps.study import sweep_runs


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


def one_rate_note(items: Sequence[Item]) -> str:
    """That the runs of the first item share a learning rate, and where each method is best; empty if not known."""
    rates = {value for run in sweep_runs(items[0].sweep, []) if (value := run.value(RATE)) is not None}
    measured = [(item, item.step_size.along(RATE)) for item in items if item.step_size is not None]
    item, curves = next(((item, curves) for item, curves in measured if curves), (items[0], ()))
    if not curves or not rates:
        return ""
    largest = max(map(float, rates))
    best = [float(curve.values[curve.best]) for curve in curves]
    smaller = sum(rate < largest for rate in best)
    return (
        f"These runs use one learning rate for all methods, {value_text(largest)}. Of the rates tried in "
        f"{item.sweep.slug} ({_span(curves[0].values)}, n = {min(curve.grid.n for curve in curves)}), a smaller one is "
        f"best for {smaller} of {len(best)} methods and regimes ({_span(best)})."
    )


def _span(rates: Iterable[float]) -> str:
    known = sorted(rates)
    return f"{value_text(known[0])} to {value_text(known[-1])}"


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

"""Phrases of captions that depend on the study: what the bands are, how many seeds there are, what failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.lines import MOST_BANDS
from cppo_lab.analysis.formatting import plural
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.method_notes import final_in_words, window_in_words
from cppo_lab.analysis.run_table import ACCURACY


def filled_in(caption: str, data: FigureData) -> str:
    """The caption with its {band}, {seeds}, {failures}, {final} and {window} filled in; other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda m: _PHRASES[m[1]](data) if m[1] in _PHRASES else m[0], caption)


def seeds_recorded(study: Study, panels: Collection[str]) -> dict[str, int]:
    """Runs of each group that recorded an accuracy after the starting policy, whether they count or not."""
    groups = [group for group in study.grouping.groups if group.panel in panels]
    if ACCURACY not in study.metrics:
        return {group.label: 0 for group in groups}
    evaluated = (study.metrics["step"] >= 1) & study.metrics[ACCURACY].notna()
    recorded = study.runs["group"][sorted(set(study.metrics.loc[evaluated, "run_id"]))]
    return {group.label: int((recorded == group.label).sum()) for group in groups}


def _seeds(data: FigureData) -> str:
    sizes = seeds_recorded(data.study, data.panels)
    counts = set(sizes.values())
    if len(counts) == 1:
        return f"n = {plural(counts.pop(), 'seed')} per method"
    return "n: " + ", ".join(f"{label} {size}" for label, size in sizes.items())


def _band(data: FigureData) -> str:
    sizes = seeds_recorded(data.study, data.panels).values()
    grouping = data.study.grouping
    if max(len(grouping.in_panel(panel)) for panel in data.panels) > MOST_BANDS:
        return f"no bands are drawn for more than {MOST_BANDS} methods, see the intervals instead"
    parts = [
        (any(size >= 3 for size in sizes), "bands are 95% Student t intervals of the mean over seeds"),
        (any(size == 2 for size in sizes), "with two seeds the band is their range, not an interval"),
        (any(size == 1 for size in sizes), "a single seed has no band"),
    ]
    return "; ".join(text for applies, text in parts if applies)


def _failures(data: FigureData) -> str:
    if not (data.study.runs["status"] == "FAILED").any():
        return ""
    return " A red cross marks where a run failed; mean accuracies continue it at its last value."


_PHRASES: Mapping[str, Callable[[FigureData], str]] = {
    "band": _band,
    "seeds": _seeds,
    "failures": _failures,
    "final": lambda data: final_in_words(data.summary),
    "window": lambda data: window_in_words(data.summary),
}

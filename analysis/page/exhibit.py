"""A figure with its place on the page, and the words that several captions share."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from matplotlib.figure import Figure

from cppo_lab.analysis.figures.accuracy import MOST_BANDS
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import ACCURACY

MOST_SLUG = 48


@dataclass(frozen=True)
class Exhibit:
    """A figure with its place on the page; `figure` is None where it cannot be drawn, and the caption says
    why.
    """

    name: str
    section: str
    title: str
    caption: str
    figure: Figure | None


def of_panel(study: Study, panel: str, name: str, title: str) -> tuple[str, str]:
    """Name and title of a figure that each panel has one of: with the panel in them where there are several."""
    if len(study.grouping.panels) == 1:
        return name, title
    return f"{name}-{_slug(panel)}", f"{title}, {panel}"


def seeds_recorded(study: Study) -> dict[str, int]:
    """Runs of each group that recorded an accuracy after the starting policy, counted in the statistics or
    not.
    """
    if ACCURACY not in study.metrics:
        return {group.label: 0 for group in study.grouping.groups}
    evaluated = (study.metrics["step"] >= 1) & study.metrics[ACCURACY].notna()
    recorded = study.runs["group"][sorted(set(study.metrics.loc[evaluated, "run_id"]))]
    return {group.label: int((recorded == group.label).sum()) for group in study.grouping.groups}


def seeds_in_words(study: Study) -> str:
    """How many seeds stand behind each method's line."""
    sizes = seeds_recorded(study)
    counts = sorted(set(sizes.values()))
    if len(counts) == 1:
        return f"n = {counts[0]} {'seed' if counts[0] == 1 else 'seeds'} per method"
    return "n: " + ", ".join(f"{label} {size}" for label, size in sizes.items())


def band_in_words(study: Study) -> str:
    """What the band around a mean is, for the numbers of seeds that occur."""
    sizes = list(seeds_recorded(study).values())
    parts = []
    if max(map(len, map(study.grouping.in_panel, study.grouping.panels))) > MOST_BANDS:
        return f"no bands are drawn for more than {MOST_BANDS} methods, see the intervals below"
    if any(size >= 3 for size in sizes):
        parts.append("the band is the 95% Student t interval of the mean over seeds")
    if any(size == 2 for size in sizes):
        parts.append("with two seeds the band is their range, not an interval")
    if any(size == 1 for size in sizes):
        parts.append("a single seed has no band")
    return "; ".join(parts)


def deaths_in_words(study: Study) -> str:
    """What the crosses mean, where a run failed."""
    if not (study.runs["status"] == "FAILED").any():
        return ""
    return " A red cross marks where a run failed; means of accuracy carry it on at its last value."


def _slug(text: str) -> str:
    """A short file name for a panel; a long one is cut and told apart by a checksum."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "all"
    return slug if len(slug) <= MOST_SLUG else f"{slug[:MOST_SLUG]}-{zlib.crc32(text.encode()):08x}"

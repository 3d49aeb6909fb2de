"""Which panels of a study over the learning rate come first.

Where every method has several learning rates and no rule is among them, the answer is each method at its best. A
panel at one rate is then a detail, so one panel of each regime is shown: that at the lab's default rate, or at the
middle one. The others are folded away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cppo_lab.analysis.claims import Planned
from cppo_lab.analysis.coordinates import published
from cppo_lab.analysis.grids import RATE, panel_less, tuning_axes
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.summary import Summary


def panels_by_regime(summary: Summary) -> dict[str, tuple[str, ...]]:
    """The panels at single settings of every regime whose methods are compared at their best; empty without any.

    A regime is a panel of `Control`: the axes that are not tuned.
    """
    controls = summary.step_size.controls if summary.step_size else ()
    compared = {control.panel for control in controls}
    tuned = tuning_axes(summary.table.runs)
    found: dict[str, list[str]] = {}
    for panel in summary.panels:
        for result in panel.results:
            regime = regime_of(result.group, tuned)
            if regime in compared and panel.panel not in found.setdefault(regime, []):
                found[regime].append(panel.panel)
    return {regime: tuple(panels) for regime, panels in found.items() if len(panels) > 1}


def folded_panels(summary: Summary) -> tuple[str, ...]:
    """The panels that are folded away, in the order of the study."""
    tuned = tuning_axes(summary.table.runs)
    settings = {panel.panel: dict(panel.results[0].group.values) for panel in summary.panels if panel.results}
    folded: set[str] = set()
    for panels in panels_by_regime(summary).values():
        chosen = {axis: _chosen(axis, [settings[panel].get(axis, "") for panel in panels]) for axis in tuned}
        folded |= {
            panel
            for panel in panels
            if any(
                not math.isnan(value := _number(settings[panel].get(axis, ""))) and value != wanted
                for axis, wanted in chosen.items()
            )
        }
    return tuple(panel.panel for panel in summary.panels if panel.panel in folded)


def regime_of(group: Group, tuned: Sequence[str]) -> str:
    """The panel of a group without its values on the tuned axes."""
    return panel_less(Planned(group.panel, group.method, "", dict(group.values)), tuned)


def _chosen(axis: str, texts: Sequence[str]) -> float:
    """The default learning rate if it is one of these values, otherwise the middle number; NaN without numbers."""
    values = sorted({value for value in map(_number, texts) if not math.isnan(value)})
    default = published("", RATE) if axis == RATE else None
    if default in values:
        return default
    return values[(len(values) - 1) // 2] if values else math.nan


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

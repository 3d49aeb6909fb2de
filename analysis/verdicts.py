"""The verdict of a study, panel by panel, as the page, its Markdown and the terminal give it."""

from __future__ import annotations

from collections.abc import Sequence

from cppo_lab.analysis.at_best_text import Regime, at_best_verdict
from cppo_lab.analysis.formatting import plural
from cppo_lab.analysis.grids import tuning_axes
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.single_rates import panels_by_regime
from cppo_lab.analysis.summary import Summary
from cppo_lab.analysis.verdict_text import panel_title, verdict

Sentences = tuple[tuple[str, tuple[str, ...]], ...]
"""(the title of a panel, its sentences), in page order."""

SINGLE_RATES = "At single learning rates"


def verdicts(study: Study, summary: Summary) -> Sentences:
    """Each regime whose methods are compared at their best, then the other panels; every panel without such a one."""
    regimes = panels_by_regime(summary)
    controls = summary.step_size.controls if summary.step_size else ()
    at_best = tuple(
        (
            regime + panel_title(study, panels[0]).removeprefix(panels[0]),
            tuple(
                at_best_verdict(
                    Regime(
                        tuple(control for control in controls if control.panel == regime),
                        tuple(result for result in summary.results if result.group.panel in panels),
                        tuning_axes(summary.table.runs),
                    )
                )
            ),
        )
        for regime, panels in regimes.items()
    )
    inside = {panel for panels in regimes.values() for panel in panels}
    return (*at_best, *_of_panels(study, summary, [p.panel for p in summary.panels if p.panel not in inside]))


def verdicts_at_single_rates(study: Study, summary: Summary) -> Sentences:
    """The panels at one learning rate each, of the regimes whose verdict is about each method at its best."""
    inside = [panel for panels in panels_by_regime(summary).values() for panel in panels]
    return _of_panels(study, summary, inside)


def folded_note(folded: Sequence[str], are_drawn: bool) -> str:
    """Which panels the sections after this one show, and where the others are."""
    where = (
        "is folded away below each"
        if are_drawn
        else "is in the tables alone; `cppo-lab report --all-panels` draws it too"
    )
    return (
        "The following sections show one learning rate of each regime, the default one or else the middle one. "
        f"What is left out, {plural(len(folded), 'panel')}, {where}."
    )


def _of_panels(study: Study, summary: Summary, wanted: list[str]) -> Sentences:
    return tuple(
        (panel_title(study, panel.panel), tuple(verdict(panel)))
        for panel in summary.panels
        if panel.panel in wanted
    )

"""The few responses shown where the picker is not: in print, in Markdown, and without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cppo_lab.analysis.formatting import plural
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.responses import (
    NUMBERS,
    KeptStep,
    Response,
    TokenRecord,
    kept_files,
    recorded_steps,
    signed,
)
from cppo_lab.analysis.run_table import ACCURACY

MOST_METHODS = 8
SYMBOLS = {
    "divergence": "D_t",
    "weight": "w_t",
    "threshold": "threshold c_t",
    "ratio": "ratio",
    "advantage": "advantage",
}


@dataclass(frozen=True)
class Sample:
    """A response and its origin."""

    method: str
    label: str
    run_id: str
    step: int
    response: Response


def choose(study: Study) -> list[Sample]:
    """One correct and one wrong response of each method (eight methods at most), from the last recorded step of its
    first run with recorded tokens, or else of its first run with any response.
    """
    chosen: list[Sample] = []
    for group in study.grouping.groups[:MOST_METHODS]:
        ids = [str(run_id) for run_id in study.runs.index[study.runs["group"] == group.label]]
        found = _first_to_read(study, ids)
        if found is not None:
            run_id, kept = found
            chosen += [
                Sample(group.method, group.label, run_id, kept.step, response)
                for response in _correct_and_wrong(kept)
            ]
    return chosen


def _first_to_read(study: Study, run_ids: Sequence[str]) -> tuple[str, KeptStep] | None:
    """The first run with recorded tokens and its last such step, or else the first run with any response.

    A step has responses without tokens when every group was dropped for having the same reward throughout.
    """
    unrecorded = None
    for run_id in run_ids:
        kept = steps_of_run(study, run_id, (1.0,))
        if kept and kept[0].recorded:
            return run_id, kept[0]
        if kept and unrecorded is None:
            unrecorded = run_id, kept[0]
    return unrecorded


def choice_in_words(study: Study) -> str:
    """How `choose` selects, so that nobody mistakes its responses for typical ones."""
    methods = len(study.grouping.groups)
    of = f"the first {MOST_METHODS} of {methods} methods" if methods > MOST_METHODS else "every method"
    return (
        f"One correct and one wrong response of {of}, if there are any, from the last recorded step of a run; "
        "responses with masked tokens first."
    )


def steps_of_run(study: Study, run_id: str, places: tuple[float, ...]) -> list[KeptStep]:
    """The steps of a run with recorded tokens that are nearest to `places` (0: the first step, 1: the last)."""
    evaluated: list[int] = []
    if ACCURACY in study.metrics:
        rows = study.metrics[study.metrics["run_id"] == run_id]
        evaluated = rows.loc[rows[ACCURACY].notna(), "step"].tolist()
    return recorded_steps(kept_files(Path(str(study.runs.at[run_id, "folder"]))), evaluated, places)


def token_notes(tokens: TokenRecord) -> list[str]:
    """A note per token, such as `token 3: D_t 0.2, ratio 1.1, kept`."""
    notes = []
    for place, reason in enumerate(tokens.masked):
        said = [
            f"{SYMBOLS[name]} {signed(tokens.columns[name][place])}"
            for name in NUMBERS
            if name in tokens.columns
        ]
        said.append(f"masked by {reason}" if reason else "kept")
        notes.append(f"token {place + 1}: {', '.join(said)}")
    return notes


def left_out(response: Response) -> str:
    """How much of the response is not shown, as text; empty for a complete one."""
    if response.tokens is not None:
        more = response.tokens.length - len(response.tokens.text)
        return f"{plural(more, 'more token')}" if more else ""
    return f"{plural(response.cut, 'more character')}" if response.cut else ""


def _correct_and_wrong(kept: KeptStep) -> list[Response]:
    """The first correct and the first wrong one, preferring masked tokens, then recorded tokens."""
    ranked = sorted(kept.responses, key=lambda one: (one.tokens is None, not one.any_masked))
    found = (next((one for one in ranked if one.right is wanted), None) for wanted in (True, False))
    return [one for one in found if one is not None]

"""The responses that the page's picker offers: JSON inside the page, limited in size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from cppo_lab.analysis.figures.looks import looks_of
from cppo_lab.analysis.figures.render import variable
from cppo_lab.analysis.formatting import count, plural
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.responses import KeptStep, Response, TokenRecord, kept_files
from cppo_lab.analysis.page.samples import steps_of_run
from cppo_lab.analysis.safe_text import brief, visible

BUDGET = 8_000_000
# Which steps of a run (0: the first, 1: the last), most informative first.
PLACES = (1.0, 0.0, 0.5, 0.25, 0.75)
# Every run gets an equal share of the budget for this many of them.
SHARED_PLACES = 3
MOST_PROBLEMS = 4
MOST_RESPONSES = 8
# Of a step, however large the study.
LEAST_RESPONSES = 2
DIGITS = 4
MOST_LABEL = 80
_SIGNS = {"": ".", "threshold": "t", "budget": "b"}


@dataclass(frozen=True)
class SampleData:
    """`block`: JSON that is safe inside a script element; `note`: how many of the saved responses it holds."""

    block: Markup
    note: str


@dataclass
class _Run:
    """A run being added to the page; `steps` holds what fits."""

    run_id: str
    about: dict[str, Any]
    found: list[KeptStep]
    steps: list[dict[str, Any]] = field(default_factory=list)


def sample_data(study: Study, budget: int = BUDGET) -> SampleData | None:
    """Responses of all runs, at most `budget` bytes; None when no run saved any that fits.

    Each run gets its last, first and middle step with recorded tokens, then more steps while there is room. If not all
    fit, last steps come before first steps, and the first run of every method before any second run.
    """
    runs = [run for run in _runs(study) if run.found]
    if not runs:
        return None
    share = budget // (SHARED_PLACES * len(runs))
    used = 0
    for run, kept in _by_priority(runs):
        step, size = _step(kept, share)
        if used + size <= budget:
            run.steps.append(step)
            used += size
    for run in runs:
        run.steps.sort(key=lambda step: step["step"])
    shown = [run for run in runs if run.steps]
    if not shown:
        return None
    content = {"first": _first(shown), "runs": [run.about | {"steps": run.steps} for run in shown]}
    return SampleData(_json(content), _note(shown, runs))


def _runs(study: Study) -> Iterator[_Run]:
    """The runs, method by method."""
    looks = looks_of(study.grouping.methods)
    for group in study.grouping.groups:
        for run_id, row in study.runs[study.runs["group"] == group.label].iterrows():
            about = {
                "id": brief(visible(str(run_id)), MOST_LABEL),
                "method": brief(visible(group.label), MOST_LABEL),
                "seeds": brief(visible(str(row["seeds"])), MOST_LABEL),
                "color": variable(looks[group.method].color),
                "kept": len(kept_files(row["folder"])),
            }
            yield _Run(str(run_id), about, steps_of_run(study, str(run_id), PLACES))


def _by_priority(runs: Sequence[_Run]) -> Iterator[tuple[_Run, KeptStep]]:
    """Steps in order of priority: place by place, and at each place one run of every method in turn."""
    met: dict[str, int] = {}
    turns = []
    for run in runs:
        turn = met.get(run.about["method"], 0)
        met[run.about["method"]] = turn + 1
        turns += [(place, turn, run, kept) for place, kept in enumerate(run.found)]
    for _, _, run, kept in sorted(turns, key=lambda entry: entry[:2]):
        yield run, kept


def _step(kept: KeptStep, share: int) -> tuple[dict[str, Any], int]:
    """A step as the page reads it, about `share` bytes long, and its size in bytes."""
    chosen: list[tuple[Response, dict[str, Any]]] = []
    used = 0
    for response in _ranked(kept):
        encoded = _response(response)
        size = _size(encoded)
        if used + size <= share or len(chosen) < LEAST_RESPONSES:
            chosen.append((response, encoded))
            used += size
    chosen.sort(key=lambda entry: (entry[0].problem, entry[0].number))
    problems: dict[int, dict[str, Any]] = {}
    for response, encoded in chosen:
        problem = {
            "problem": response.problem,
            "prompt": response.prompt,
            "answer": response.answer,
            "responses": [],
        }
        problems.setdefault(response.problem, problem)["responses"].append(encoded)
    step = {
        "step": kept.step,
        "kept": len(kept.responses),
        "problems": list(problems.values()),
    }
    return step, _size(step)


def _ranked(kept: KeptStep) -> list[Response]:
    """Responses in order of priority: problem by problem in turn; within a problem its first correct and first wrong
    response, then those with masked tokens, then the rest.
    """
    of_problem: dict[int, list[Response]] = {}
    for response in kept.responses:
        of_problem.setdefault(response.problem, []).append(response)
    turns = []
    for problem in sorted(of_problem)[:MOST_PROBLEMS]:
        mine = of_problem[problem]
        firsts = {next((r.number for r in mine if r.right is right), None) for right in (True, False)}
        telling = sorted(mine, key=lambda r: (r.number not in firsts, not r.any_masked))
        turns += [(turn, problem, response) for turn, response in enumerate(telling[:MOST_RESPONSES])]
    return [response for _, _, response in sorted(turns, key=lambda entry: entry[:2])]


def _response(response: Response) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "number": response.number,
        "right": response.right,
        "verdict": response.verdict,
        "parsed": response.parsed,
        "facts": response.facts,
    }
    if response.tokens is None:
        return encoded | {"completion": response.completion, "cut": response.cut}
    return encoded | {"tokens": _tokens(response.tokens)}


def _tokens(tokens: TokenRecord) -> dict[str, Any]:
    """Columns of short numbers; a constant column is one number, and `masked` has one letter per token."""
    columns: dict[str, Any] = {}
    for name, values in tokens.columns.items():
        short = [None if value is None else _short(value) for value in values]
        columns[name] = short[0] if short and len(set(short)) == 1 else short
    if tokens.delta is not None:
        columns["delta"] = _short(tokens.delta)
    return {
        "text": tokens.text,
        "masked": "".join(_SIGNS[reason] for reason in tokens.masked),
        "length": tokens.length,
        **columns,
    }


def _short(value: float) -> float | int:
    """The number with DIGITS significant digits, as an integer where possible."""
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _first(runs: Sequence[_Run]) -> tuple[str, int, int]:
    """The run, step and problem to show first: one with tokens masked for the most reasons."""
    places = [
        ((run.about["id"], step["step"], problem["problem"]), _reasons(problem))
        for run in runs
        for step in reversed(run.steps)
        for problem in step["problems"]
    ]
    return max(places, key=lambda entry: entry[1])[0]


def _reasons(problem: dict[str, Any]) -> tuple[int, bool]:
    masked = {sign for one in problem["responses"] for sign in one.get("tokens", {}).get("masked", "")}
    return len(masked - {"."}), "b" in masked


def _note(shown: Sequence[_Run], runs: Sequence[_Run]) -> str:
    steps = sum(len(run.steps) for run in shown)
    kept = sum(run.about["kept"] for run in runs)
    absent = len(runs) - len(shown)
    rest = f" {plural(absent, 'run')} did not fit." if absent else ""
    return (
        f"In a browser this page offers {count(steps)} of the {count(kept)} steps at which {plural(len(runs), 'run')} "
        f"saved responses.{rest} cppo-lab inspect RUN --step N shows the rest."
    )


def _json(content: object) -> Markup:
    return htmlsafe_json_dumps(content, separators=(",", ":"), allow_nan=False)


def _size(content: object) -> int:
    # All ASCII: whatever is not is escaped.
    return len(_json(content))

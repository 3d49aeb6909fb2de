"""The responses that runs save in `samples/step_N.jsonl`, read and made safe to display."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from cppo_lab.analysis.formatting import MINUS, count, significant
from cppo_lab.analysis.load.run_record import number, read_json_lines
from cppo_lab.analysis.safe_text import visible

MOST_CHARACTERS = 900
MOST_TOKENS = 400
MOST_TOKEN_CHARACTERS = 60
NUMBERS = ("divergence", "weight", "threshold", "ratio", "advantage")
REASONS = ("threshold", "budget")
_PROMPT_CHARACTERS = 2 * MOST_CHARACTERS
_ANSWER_CHARACTERS = 80


@dataclass(frozen=True)
class TokenRecord:
    """What the last update of a response did with its tokens: the first MOST_TOKENS of them.

    masked: "threshold", "budget" or "" for each token; columns: a value per token for each of NUMBERS that the method
    has; delta: the token threshold at that step; counts: how many of all `length` tokens each of REASONS masked.
    """

    text: tuple[str, ...]
    masked: tuple[str, ...]
    columns: dict[str, tuple[float | None, ...]]
    delta: float | None
    counts: dict[str, int]
    length: int


@dataclass(frozen=True)
class Response:
    """One graded response. Its texts are cut, and their invisible characters written out.

    problem: the index of its prompt within the step, from 0, as in `cppo-lab inspect`; number: its own among the
    responses to that prompt, from 1; cut: characters of the completion left out.
    """

    problem: int
    number: int
    prompt: str
    completion: str
    cut: int
    answer: str
    parsed: str
    verdict: str
    reward: float | None
    advantage: float | None
    length: int | None
    finish: str
    tokens: TokenRecord | None

    @property
    def right(self) -> bool:
        """Whether it was rewarded."""
        return (self.reward or 0.0) > 0

    @property
    def any_masked(self) -> bool:
        """Whether any of its tokens is known to have been masked."""
        return self.tokens is not None and any(self.tokens.counts.values())

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """(name, value as text) of how it was graded and trained on."""
        facts = [
            ("reward", signed(self.reward)),
            ("advantage", signed(self.advantage)),
            ("length", count(self.length)),
            ("finish", self.finish),
        ]
        if self.tokens is not None:
            counts = self.tokens.counts
            facts.append(("masked", f"{counts['threshold']} by threshold, {counts['budget']} by budget"))
        return tuple(facts)


@dataclass(frozen=True)
class KeptStep:
    """The responses that a run saved at one training step, in file order."""

    step: int
    responses: tuple[Response, ...]

    @property
    def recorded(self) -> bool:
        """Whether the tokens of any response were recorded."""
        return any(response.tokens is not None for response in self.responses)


def kept_files(folder: Path) -> dict[int, Path]:
    """The sample files of a run by training step, in order."""
    found = {}
    for path in (folder / "samples").glob("step_*.jsonl"):
        step = re.fullmatch(r"step_(\d+)", path.stem)
        if step:
            found[int(step.group(1))] = path
    return dict(sorted(found.items()))


def recorded_steps(
    files: dict[int, Path], evaluated: Sequence[int], places: Sequence[float]
) -> list[KeptStep]:
    """For each of `places` (0: the first step, 1: the last) the nearest step with recorded tokens, each step once.

    Tokens are recorded at `evaluated` steps only, so only those are read if there are any. A run without recorded
    tokens yields the last step with a response; a run without responses yields nothing.
    """
    candidates = sorted(set(files) & set(evaluated)) or list(files)
    load = cache(lambda step: read_step(step, files[step]))
    chosen: dict[int, KeptStep] = {}
    for place in places:
        target = place * (len(candidates) - 1)
        by_distance = sorted(enumerate(candidates), key=lambda entry: abs(entry[0] - target))
        step = next((step for _, step in by_distance if step not in chosen and load(step).recorded), None)
        if step is None:
            break
        chosen[step] = load(step)
    with_responses = (step for step in map(load, reversed(files)) if step.responses)
    return list(chosen.values()) or list(islice(with_responses, 1))


def read_step(step: int, path: Path) -> KeptStep:
    """The responses of a sample file; unreadable rows are skipped."""
    rows, _ = read_json_lines(path)
    met: dict[str, int] = {}
    responses = []
    for row in rows:
        prompt = str(row.get("prompt") or "")
        met[prompt] = met.get(prompt, 0) + 1
        responses.append(_response(list(met).index(prompt), met[prompt], row))
    return KeptStep(step, tuple(responses))


def signed(value: float | None) -> str:
    """A number with four significant digits and a true minus."""
    return significant(value, 4).replace("-", MINUS)


def _response(problem: int, nth: int, row: dict[str, Any]) -> Response:
    completion = str(row.get("completion") or "")
    reward, length = _finite(row.get("reward")), _finite(row.get("length"))
    verdict = row.get("verdict") or ("correct" if (reward or 0.0) > 0 else "wrong")
    return Response(
        problem=problem,
        number=nth,
        prompt=_start(row.get("prompt") or "", _PROMPT_CHARACTERS).rstrip("\n"),
        completion=visible(completion[:MOST_CHARACTERS]),
        cut=max(0, len(completion) - MOST_CHARACTERS),
        answer=_start(row.get("answer"), _ANSWER_CHARACTERS),
        parsed=_start(row.get("parsed"), _ANSWER_CHARACTERS),
        verdict=_start(verdict, _ANSWER_CHARACTERS).replace("_", " "),
        reward=reward,
        advantage=_finite(row.get("advantage")),
        length=None if length is None else int(length),
        finish=_start(row.get("finish"), _ANSWER_CHARACTERS),
        tokens=_record(row.get("tokens")),
    )


def _record(tokens: object) -> TokenRecord | None:
    """The tokens of a row; None when there are none, or their columns differ in length."""
    if not isinstance(tokens, dict):
        return None
    text, masked = tokens.get("text"), tokens.get("masked")
    if not isinstance(text, list) or not isinstance(masked, list) or len(text) != len(masked):
        return None
    columns = {
        name: tuple(_finite(value) for value in values[:MOST_TOKENS])
        for name in NUMBERS
        if isinstance(values := tokens.get(name), list) and len(values) == len(text)
    }
    reasons = tuple(reason if reason in REASONS else "" for reason in masked)
    return TokenRecord(
        text=tuple(_token_text(str(piece)) for piece in text[:MOST_TOKENS]),
        masked=reasons[:MOST_TOKENS],
        columns=columns,
        delta=_finite(tokens.get("delta")),
        counts={reason: reasons.count(reason) for reason in REASONS},
        length=len(text),
    )


def _token_text(piece: str) -> str:
    """A token that can be seen and hovered over, even if it is a line break or empty."""
    if not piece:
        # A character can take several tokens: all but the last are empty.
        return "◌"
    return _start(piece, MOST_TOKEN_CHARACTERS).replace("\n", "⏎\n")


def _finite(value: object) -> float | None:
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def _start(value: object, most: int) -> str:
    if value is None:
        return "–"
    text = str(value)
    return visible(text[:most]) + ("…" if len(text) > most else "")

"""Responses that runs keep to be read, made safe to show: the rows of `samples/step_N.jsonl`."""

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
    """What the last update that saw a response decided of its tokens, of the first MOST_TOKENS of them.

    masked: "threshold", "budget" or "" for each token; columns: for each of NUMBERS that the method has, a value per
    token; delta: the token-level threshold of the step; counts: tokens masked by each of REASONS, of all `length`.
    """

    text: tuple[str, ...]
    masked: tuple[str, ...]
    columns: dict[str, tuple[float | None, ...]]
    delta: float | None
    counts: dict[str, int]
    length: int


@dataclass(frozen=True)
class Response:
    """One graded response. Its texts have their invisible characters written out and are cut.

    problem: the number of its prompt among those of the step, from 0, as in `cppo-lab inspect`; number: its own among
    the responses to that prompt, from 1; cut: characters of the completion left out.
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
        """(name, value in words) of how it was graded and trained on."""
        facts = [
            ("reward", signed(self.reward)),
            ("advantage", signed(self.advantage)),
            ("length", count(self.length)),
            ("ended by", self.finish),
        ]
        if self.tokens is not None:
            counts = self.tokens.counts
            facts.append(("masked", f"{counts['threshold']} by threshold, {counts['budget']} by budget"))
        return tuple(facts)


@dataclass(frozen=True)
class KeptStep:
    """The responses that a run kept of one training step, in the order of their file."""

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
    """For each of `places` (0: the first, 1: the last) the nearest step whose tokens were recorded, none twice.

    Tokens are recorded at `evaluated` steps alone, so only those are looked at where there are any. A run without a
    single record gives the last step that kept a response, in text; one that kept nothing, none.
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
    """The readable rows of a sample file."""
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
    """The record of a row; None where there is none, or its columns do not fit together."""
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
    """A token as it can be seen and pointed at, a line break and an empty one included."""
    if not piece:
        # All but the last token of a character that takes several.
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

"""How one response is graded against one reference answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cppo_lab.tasks.grading.extraction import marked_answer
from cppo_lab.tasks.grading.numbers import grade_number, parse_number
from cppo_lab.tasks.grading.spelling import plain
from cppo_lab.tasks.grading.verdict import Outcome, Verdict, judged

MAX_RESPONSE = 1 << 20
"""Characters of the longest response that is read at all; 32,768 tokens have about a tenth of them."""
_MAX_TEXT = 400

Comparison = Literal["number", "symbolic", "text"]


@dataclass(frozen=True)
class AnswerFormat:
    """How a response states its answer, and how that is compared with the reference.

    `answer_line` also accepts what follows `Answer:` (see `marked_answer`). `comparison`: exact numbers; symbolic
    mathematics, where the reference is not a number; or text, where case, spaces and a final period do not count.
    """

    answer_line: bool = False
    comparison: Comparison = "number"


MARKED = AnswerFormat()
"""A number behind `####` or in a box."""


def grade(response: str, answer: str, form: AnswerFormat = MARKED) -> Verdict:
    """The verdict on a response's marked answer.

    A reference that is an integer or a decimal is compared exactly and never symbolically: a response that writes 18
    as 36/2, 18% or x=18 is wrong. Other references go to math-verify behind guards.
    """
    if len(response) > MAX_RESPONSE:
        return Verdict(Outcome.REJECTED)
    if form.comparison == "text":
        return _grade_text(marked_answer(response, form.answer_line), answer)
    if parse_number(answer) is not None:
        return grade_number(response, answer, form.answer_line)
    from cppo_lab.tasks.grading.symbolic import grade_expression

    marked = marked_answer(response, form.answer_line)
    return Verdict(Outcome.UNPARSABLE) if marked is None else grade_expression(marked, answer)


def plain_text(text: str) -> str:
    """`text` without what does not count when answers are compared as text."""
    return " ".join(plain(text).split()).removesuffix(".").rstrip().casefold()


def _grade_text(marked: str | None, answer: str) -> Verdict:
    found = plain_text(marked or "")
    if not found:
        return Verdict(Outcome.UNPARSABLE)
    if len(found) > max(_MAX_TEXT, len(answer)):
        return Verdict(Outcome.REJECTED)
    return judged(found == plain_text(answer), found)

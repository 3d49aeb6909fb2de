"""A problem: a prompt with an answer that can be checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cppo_lab.tasks.grading.answers import MARKED, AnswerFormat
from cppo_lab.tasks.grading.pool import grader
from cppo_lab.tasks.grading.verdict import Verdict


@dataclass(frozen=True)
class Problem:
    """A prompt with its reference answer.

    `solution` is a reference response where the task has one; supervised warm-up learns from it. `is_chat` says that
    the prompt is a user's message, to be put into the model's chat template behind the message `system`, if there is
    one, and `format` how a response states its answer. `benchmark` is where a held-out problem comes from, if a task
    has several sources, and `row` the data that it was made from, for reward functions.
    """

    prompt: str
    answer: str
    solution: str = ""
    is_chat: bool = False
    format: AnswerFormat = MARKED
    benchmark: str | None = None
    system: str | None = None
    row: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)


Grade = Callable[[Sequence[str], Sequence[Problem]], list[Verdict]]
"""From responses, and the problem of each, to verdicts."""


def grade_responses(responses: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
    """The verdict of the lab's grader on each response to the problem at its index."""
    formats = [problem.format for problem in problems]
    shared = grader(symbolic=any(each.comparison == "symbolic" for each in formats))
    return shared.grade(responses, [problem.answer for problem in problems], formats)

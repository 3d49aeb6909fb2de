"""One completion against one reference answer."""

from __future__ import annotations

from cppo_lab.tasks.grading.extraction import marked_answer
from cppo_lab.tasks.grading.numbers import grade_number, parse_number
from cppo_lab.tasks.grading.verdict import Outcome, Verdict

MAX_COMPLETION = 1 << 20
"""Characters of the longest completion that is read at all; 32,768 tokens have about a tenth of them."""


def grade(completion: str, answer: str, answer_line: bool = False) -> Verdict:
    """The verdict on a completion's marked answer.

    A reference answer that is an integer or a decimal is compared exactly, and never symbolically: a completion that
    writes 18 as 36/2, 18% or x=18 is not right. Any other reference answer goes to math-verify behind guards.
    `answer_line` is that of `marked_answer`.
    """
    if len(completion) > MAX_COMPLETION:
        return Verdict(Outcome.REJECTED)
    if parse_number(answer) is not None:
        return grade_number(completion, answer, answer_line)
    from cppo_lab.tasks.grading.symbolic import grade_expression

    marked = marked_answer(completion, answer_line)
    return Verdict(Outcome.UNPARSABLE) if marked is None else grade_expression(marked, answer)

"""Responses to problems, graded as the problems ask."""

from __future__ import annotations

from collections.abc import Sequence

from cppo_lab.tasks.grading.pool import grader
from cppo_lab.tasks.grading.verdict import Verdict
from cppo_lab.tasks.problem import Problem


def grade_responses(texts: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
    """The verdict on each text as a response to the problem at its place."""
    answer_lines = [problem.has_answer_line for problem in problems]
    return grader().grade(texts, [problem.answer for problem in problems], answer_lines)

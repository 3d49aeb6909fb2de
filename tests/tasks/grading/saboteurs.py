"""Grading that fails in the way a response names. Workers import this by its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from cppo_lab.tasks.grading import pool
from cppo_lab.tasks.grading.answers import MARKED, AnswerFormat, grade
from cppo_lab.tasks.grading.verdict import Verdict


def _spin(response: str, answer: str, form: AnswerFormat = MARKED) -> Verdict:
    while True:
        pass


def _spin_in_c(response: str, answer: str, form: AnswerFormat = MARKED) -> Verdict:
    sum(range(10**12))
    return grade(response, answer)


def _exhaust_memory(response: str, answer: str, form: AnswerFormat = MARKED) -> Verdict:
    held = []
    while True:
        held.append(bytearray(1 << 24))


def _overflow_stack(response: str, answer: str, form: AnswerFormat = MARKED) -> Verdict:
    sys.setrecursionlimit(10**9)

    def deeper(_: int) -> list[object]:
        return list(map(deeper, [0]))

    deeper(0)
    return grade(response, answer)


def _exit(response: str, answer: str, form: AnswerFormat = MARKED) -> Verdict:
    os._exit(0)


SABOTAGE: dict[str, Callable[..., Verdict]] = {
    "spin": _spin,
    "spin in C": _spin_in_c,
    "exhaust memory": _exhaust_memory,
    "overflow the stack": _overflow_stack,
    "exit": _exit,
}


def sabotaged(response: str, answer: str, form: AnswerFormat, limit_s: float) -> Verdict:
    """Grade one answer in a worker, with its grading replaced if the response names a sabotage."""
    pool.grade = SABOTAGE.get(response, grade)  # type: ignore[assignment]
    return pool._grade_one(response, answer, form, limit_s)


def never_starts(*_: object) -> None:
    """Initialise a worker, and fail."""
    os._exit(1)

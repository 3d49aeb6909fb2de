"""Grading in processes of its own: a completion can hang or blow up a worker, never the lab."""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout

from pebble import ProcessExpired, ProcessPool

from cppo_lab.grading.numbers import parse_number
from cppo_lab.grading.rules import MAX_COMPLETION, grade
from cppo_lab.grading.verdict import Outcome, Verdict

LIMIT_S = 2.0
"""Wall-clock seconds that one answer may take, from the moment a worker takes it up."""
MEMORY_BYTES = 1 << 30
"""Address space that a worker may have."""
WORKERS = 2
_ANSWERS_PER_WORKER = 5000


def _start(symbolic: bool, memory: int) -> None:
    """What a worker does first. Loading sympy is no answer's time."""
    if symbolic:
        import cppo_lab.grading.symbolic  # noqa: F401
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory, hard))


def _grade_one(completion: str, answer: str, limit_s: float) -> Verdict:
    # The parent stops a worker that hangs. Where the parent has died, this does.
    used = sum(os.times()[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + 2 * limit_s) + 2, hard))
    try:
        return grade(completion, answer)
    except MemoryError:
        # Not caught here, so that the process goes too: what it allocated may not come back.
        os._exit(1)
    except RecursionError:
        return Verdict(Outcome.REJECTED)


class Grader:
    """Grades completions in `workers` processes that are killed and replaced at their limits.

    `symbolic` loads math-verify into them; without it only numeric reference answers can be graded. Processes start
    with the first use. Close it, or use it as a context.
    """

    def __init__(
        self,
        *,
        symbolic: bool,
        workers: int = WORKERS,
        limit_s: float = LIMIT_S,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.symbolic, self.limit_s = symbolic, limit_s
        self._pool = ProcessPool(
            max_workers=workers,
            max_tasks=_ANSWERS_PER_WORKER if symbolic else 0,
            initializer=_start,
            initargs=(symbolic, memory_bytes),
            # A fork of a process with torch's threads can deadlock.
            context=multiprocessing.get_context("spawn"),
        )

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        self._pool.stop()
        self._pool.join()

    def grade(self, completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """The verdicts on `completions`, each against its reference answer.

        Raises ValueError where a reference answer is no number and the grader has no symbolic mathematics.
        """
        if not self.symbolic:
            strange = next((answer for answer in answers if parse_number(answer) is None), None)
            if strange is not None:
                raise ValueError(f"answer {strange[:40]!r}: not a number")
        futures = [
            None
            if len(completion) > MAX_COMPLETION
            else self._pool.schedule(
                _grade_one, args=(completion, answer, self.limit_s), timeout=self.limit_s
            )
            for completion, answer in zip(completions, answers, strict=True)
        ]
        return [Verdict(Outcome.REJECTED) if future is None else _result(future) for future in futures]


def _result(future: object) -> Verdict:
    try:
        verdict = future.result()  # type: ignore[attr-defined]
    except FutureTimeout:
        return Verdict(Outcome.TIMED_OUT)
    except ProcessExpired:
        # Out of memory, out of stack, or a crash of a native library.
        return Verdict(Outcome.REJECTED)
    assert isinstance(verdict, Verdict)
    return verdict


@functools.cache
def grader(symbolic: bool = False) -> Grader:
    """The grader that this process shares; its workers end with the process."""
    return Grader(symbolic=symbolic)

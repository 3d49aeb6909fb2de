"""Grading in worker processes with limits on time and memory, which are replaced when a response exceeds them.

A short response whose reference is a number or a text is graded in this process: no expression is evaluated, and
regular expressions take milliseconds at most.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.util import Finalize

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from cppo_lab.tasks.grading.answers import MARKED, MAX_RESPONSE, AnswerFormat, grade
from cppo_lab.tasks.grading.numbers import parse_number
from cppo_lab.tasks.grading.verdict import Outcome, Verdict

LIMIT_S = 2.0
"""Wall-clock seconds for one answer, from the moment a worker starts on it."""
MEMORY_BYTES = 1 << 30
"""Address space of a worker."""
WORKERS = 2
SHORT = 512
"""Characters of the longest response that needs no worker where its reference is no expression."""
_ANSWERS_PER_WORKER = 5000
# Beyond an answer's limit, for a new worker to load sympy on a busy machine.
_PATIENCE_S = 60.0
_POLL_S = 1.0
_MAX_FAILURES = 3


def _start(symbolic: bool, memory: int) -> None:
    """Prepare a worker. Loading sympy must not count towards an answer's time limit."""
    if symbolic:
        import cppo_lab.tasks.grading.symbolic  # noqa: F401
    # Pebble's handler runs only after a long call into C returns.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory, hard))


def _grade_one(response: str, answer: str, form: AnswerFormat, limit_s: float) -> Verdict:
    # The parent stops a worker that hangs; this limit does so after the parent has died.
    used = sum(os.times()[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + 2 * limit_s) + 2, hard))
    try:
        return grade(response, answer, form)
    except MemoryError:
        # End the process: the memory it allocated may not be returned otherwise.
        os._exit(1)
    except RecursionError:
        return Verdict(Outcome.REJECTED)


class Grader:
    """Grades responses in `workers` processes, which are killed and replaced at their limits.

    Those of at most `short` characters (None: not even these) need none where their reference is no expression.

    `symbolic` loads math-verify into them; without it, no reference can be symbolic. Processes start on first use.
    Close it, or use it as a context.
    """

    def __init__(
        self,
        *,
        symbolic: bool,
        workers: int = WORKERS,
        limit_s: float = LIMIT_S,
        memory_bytes: int = MEMORY_BYTES,
        short: int | None = SHORT,
    ) -> None:
        self.symbolic, self.limit_s, self._short = symbolic, limit_s, short
        self._workers, self._memory_bytes = workers, memory_bytes
        self._pool = self._new_pool()
        self._is_closed = False

    def _new_pool(self) -> ProcessPool:
        if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
            # A joblib worker's start method is loky, which is unknown to the processes it spawns.
            multiprocessing.set_start_method("spawn", force=True)
        return ProcessPool(
            max_workers=self._workers,
            max_tasks=_ANSWERS_PER_WORKER if self.symbolic else 0,
            initializer=_start,
            initargs=(self.symbolic, self._memory_bytes),
            # A fork of a process with torch's threads can deadlock.
            context=multiprocessing.get_context("spawn"),
        )

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; another thread that waits for a verdict gets a RuntimeError."""
        self._is_closed = True
        self._end_pool()

    def _end_pool(self) -> None:
        self._pool.stop()
        self._pool.join()

    def grade(
        self, responses: Sequence[str], answers: Sequence[str], formats: Sequence[AnswerFormat] | None = None
    ) -> list[Verdict]:
        """The verdict on each response, against the reference answer at its index; `formats` default to `MARKED`.

        Raises ValueError if a reference is not a number, compared as text, or (with `symbolic`) an expression;
        RuntimeError if no worker can be started, or the grader is closed.
        """
        self._check_open()
        forms = [MARKED] * len(responses) if formats is None else formats
        items = list(zip(responses, answers, forms, strict=True))
        for _, answer, form in items:
            if not self.symbolic and form.comparison != "text" and parse_number(answer) is None:
                raise ValueError(f"answer {answer[:40]!r}: not a number")
        verdicts = [self._graded_here(*item) for item in items]
        failures = 0
        while missing := [i for i, verdict in enumerate(verdicts) if verdict is None]:
            graded = self._try([items[i] for i in missing])
            failures = 0 if any(graded) else failures + 1
            if failures == _MAX_FAILURES:
                raise RuntimeError("the grading processes cannot be started, or end at once")
            for i, verdict in zip(missing, graded, strict=True):
                verdicts[i] = verdict
        return [verdict for verdict in verdicts if verdict is not None]

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the grader is closed")

    def _graded_here(self, response: str, answer: str, form: AnswerFormat) -> Verdict | None:
        """The verdict on a response that needs no worker; None for one that does."""
        if len(response) > MAX_RESPONSE:
            return Verdict(Outcome.REJECTED)
        is_expression = form.comparison != "text" and parse_number(answer) is None
        if self._short is None or len(response) > self._short or is_expression:
            return None
        return grade(response, answer, form)

    def _try(self, items: Sequence[tuple[str, str, AnswerFormat]]) -> list[Verdict | None]:
        """The verdicts on (response, answer, format), None where the pool broke."""
        self._check_open()
        if not self._pool.active:
            # Pebble abandons a pool when one of its workers dies between two answers.
            self._end_pool()
            self._pool = self._new_pool()
        futures = [
            self._pool.schedule(_grade_one, args=(*item, self.limit_s), timeout=self.limit_s)
            for item in items
        ]
        return [self._verdict(future) for future in futures]

    def _verdict(self, future: ProcessFuture[Verdict]) -> Verdict | None:
        """The verdict on one answer; None if it was lost with the pool."""
        deadline = time.monotonic() + self.limit_s + _PATIENCE_S
        while True:
            is_alive = self._pool.active
            try:
                return future.result(timeout=_POLL_S if is_alive else 0)
            except FutureTimeout:
                if future.done():
                    return Verdict(Outcome.TIMED_OUT)
            except BrokenProcessPool:
                return None
            except ProcessExpired:
                # Out of memory, out of stack, or a crash of a native library.
                return Verdict(Outcome.REJECTED)
            if not is_alive:
                return None
            if time.monotonic() > deadline:
                # Answers are graded in order: one that still waits was lost on its way to a worker.
                self._pool.stop()


@functools.cache
def grader(symbolic: bool = False) -> Grader:
    """The grader shared by this process; its workers end with the process."""
    made = Grader(symbolic=symbolic)
    # A process started by multiprocessing waits for its children; this runs before.
    Finalize(made, made.close, exitpriority=1)
    return made

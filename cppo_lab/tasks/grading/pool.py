"""Grading in processes of its own: a completion can hang or blow up a worker, never the lab."""

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

from cppo_lab.tasks.grading.numbers import parse_number
from cppo_lab.tasks.grading.rules import MAX_COMPLETION, grade
from cppo_lab.tasks.grading.verdict import Outcome, Verdict

LIMIT_S = 2.0
"""Wall-clock seconds that one answer may take, from the moment a worker takes it up."""
MEMORY_BYTES = 1 << 30
"""Address space that a worker may have."""
WORKERS = 2
_ANSWERS_PER_WORKER = 5000
# Beyond an answer's limit, for a new worker to load sympy on a busy machine.
_PATIENCE_S = 60.0
_POLL_S = 1.0
_FRUITLESS_POOLS = 3


def _start(symbolic: bool, memory: int) -> None:
    """What a worker does first. Loading sympy is no answer's time."""
    if symbolic:
        import cppo_lab.tasks.grading.symbolic  # noqa: F401
    # Pebble's handler is not heard before a long call into C returns.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory, hard))


def _grade_one(completion: str, answer: str, answer_line: bool, limit_s: float) -> Verdict:
    # The parent stops a worker that hangs. Where the parent has died, this does.
    used = sum(os.times()[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + 2 * limit_s) + 2, hard))
    try:
        return grade(completion, answer, answer_line)
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
        self._workers, self._memory_bytes = workers, memory_bytes
        self._pool = self._new_pool()
        self._is_closed = False

    def _new_pool(self) -> ProcessPool:
        if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
            # A worker of joblib says that it was started by loky, which no process that it spawns knows.
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
        """End the workers; what another thread waits for ends in a RuntimeError."""
        self._is_closed = True
        self._end_pool()

    def _end_pool(self) -> None:
        self._pool.stop()
        self._pool.join()

    def grade(
        self, completions: Sequence[str], answers: Sequence[str], answer_lines: Sequence[bool] | None = None
    ) -> list[Verdict]:
        """The verdicts on `completions`, each against its reference answer.

        `answer_lines` says of which ones an `Answer:` counts (see `marked_answer`); of none where it is left out.
        Raises ValueError where a reference answer is no number and the grader has no symbolic mathematics, and
        RuntimeError where no worker can be started, or the grader is closed.
        """
        if not self.symbolic:
            strange = next((answer for answer in answers if parse_number(answer) is None), None)
            if strange is not None:
                raise ValueError(f"answer {strange[:40]!r}: not a number")
        verdicts: list[Verdict | None] = [
            Verdict(Outcome.REJECTED) if len(completion) > MAX_COMPLETION else None
            for completion, _ in zip(completions, answers, strict=True)
        ]
        lines = [False] * len(completions) if answer_lines is None else answer_lines
        fruitless = 0
        while missing := [place for place, verdict in enumerate(verdicts) if verdict is None]:
            graded = self._try([(completions[i], answers[i], lines[i]) for i in missing])
            fruitless = 0 if any(graded) else fruitless + 1
            if fruitless == _FRUITLESS_POOLS:
                raise RuntimeError("the processes that grade cannot be started, or end at once")
            for place, verdict in zip(missing, graded, strict=True):
                verdicts[place] = verdict
        return [verdict for verdict in verdicts if verdict is not None]

    def _try(self, items: Sequence[tuple[str, str, bool]]) -> list[Verdict | None]:
        """The verdicts on (completion, answer, whether an answer line counts), None where the pool broke."""
        if self._is_closed:
            raise RuntimeError("the grader is closed")
        if not self._pool.active:
            # Pebble gives a pool up when one of its workers dies between two answers.
            self._end_pool()
            self._pool = self._new_pool()
        futures = [
            self._pool.schedule(_grade_one, args=(*item, self.limit_s), timeout=self.limit_s)
            for item in items
        ]
        return [self._verdict(future) for future in futures]

    def _verdict(self, future: ProcessFuture[Verdict]) -> Verdict | None:
        """What became of one answer; None when it was lost with the pool."""
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
                # Answers are taken up in their order: one that still waits was lost on its way to a worker.
                self._pool.stop()


@functools.cache
def grader(symbolic: bool = False) -> Grader:
    """The grader that this process shares; its workers end with the process."""
    made = Grader(symbolic=symbolic)
    # A process that multiprocessing started waits for its children, and runs this before.
    Finalize(made, made.close, exitpriority=1)
    return made

"""Answers that would hang, crash or fool a grader: their verdicts, and those of the answers graded after them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pebble
import psutil
import pytest
from hostile import FAMILIES, Hostile, dressed, hostile_answers
from saboteurs import never_starts, sabotaged

from cppo_lab.tasks.grading import pool
from cppo_lab.tasks.grading.answers import MARKED, AnswerFormat, grade
from cppo_lab.tasks.grading.pool import Grader
from cppo_lab.tasks.grading.verdict import Outcome, Verdict

NUMERIC_GOLDS = ("18", "-3", "0.5", "204")
SYMBOLIC_GOLDS = (r"\frac{1}{2}", "(3,4]", "x^2+1")
ORDINARY = (("#### 18", "18"), (r"\boxed{0.5}", r"\frac{1}{2}"), (r"\boxed{1 + x^2}", "x^2+1"))
SPARE_S = 1.0
GROWTH_BYTES = 100 << 20
EVERY = 10
"""One answer in so many is an ordinary one."""

Pair = tuple[str, str]


@dataclass
class Clock:
    """When a worker started on each answer and when its verdict arrived, in the order of grading."""

    taken_up: dict[int, float] = field(default_factory=dict)
    done: dict[int, float] = field(default_factory=dict)
    asked: int = 0

    def seconds(self) -> list[float]:
        """The time that each answer took."""
        return [self.done[number] - self.taken_up[number] for number in range(self.asked)]


@contextlib.contextmanager
def timed(grader: Grader) -> Iterator[Clock]:
    """Time everything that `grader` grades in the meantime."""
    clock, schedule = Clock(), grader._pool.schedule

    def timed_schedule(*args: Any, **kwargs: Any) -> Any:
        number, future = clock.asked, schedule(*args, **kwargs)
        clock.asked += 1
        is_running = future.set_running_or_notify_cancel

        def taken_up() -> bool:
            clock.taken_up[number] = time.monotonic()
            return bool(is_running())

        future.set_running_or_notify_cancel = taken_up
        future.add_done_callback(lambda _: clock.done.setdefault(number, time.monotonic()))
        return future

    grader._pool.schedule = timed_schedule
    try:
        yield clock
    finally:
        grader._pool.schedule = schedule


def workers_of(grader: Grader) -> list[psutil.Process]:
    """The worker processes."""
    return [psutil.Process(pid) for pid in tuple(grader._pool._pool_manager.worker_manager.workers)]


@pytest.fixture(scope="module")
def symbolic() -> Iterator[Grader]:
    """A grader whose workers have started."""
    with Grader(symbolic=True, limit_s=1.0, short=None) as grader:
        grader.grade(*zip(*ORDINARY, strict=True))
        yield grader


@pytest.fixture
def saboteur(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Grader]]:
    """Make a grader whose workers fail as a response such as `spin` says."""
    monkeypatch.setattr(pool, "_grade_one", sabotaged)
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Grader(symbolic=False, short=None, **options))


def with_ordinary(pairs: Sequence[Pair]) -> list[Pair]:
    """`pairs` with an ordinary answer before every few of them."""
    mixed: list[Pair] = []
    for number, pair in enumerate(pairs):
        if number % EVERY == 0:
            mixed.append(ORDINARY[number // EVERY % len(ORDINARY)])
        mixed.append(pair)
    return mixed


def check_all(grader: Grader, pairs: Sequence[Pair]) -> list[Verdict]:
    """Grade hostile answers with ordinary ones among them, and check verdicts and times."""
    mixed = with_ordinary(pairs)
    before = psutil.Process().memory_info().rss
    with timed(grader) as clock:
        verdicts = grader.grade(*zip(*mixed, strict=True))
    assert psutil.Process().memory_info().rss - before < GROWTH_BYTES
    assert clock.asked == sum(len(completion) <= pool.MAX_RESPONSE for completion, _ in mixed)
    assert max(clock.seconds()) < grader.limit_s + SPARE_S
    expected = [pair in ORDINARY for pair in mixed]
    wrongly = [
        (pair[0][:80], pair[1], verdict)
        for pair, verdict, correct in zip(mixed, verdicts, expected, strict=True)
        if verdict.correct != correct
    ]
    assert not wrongly
    return verdicts


def numeric_pairs(hostile: Sequence[Hostile]) -> list[Pair]:
    """Every answer, stated in every way, against a number."""
    return [
        (completion, NUMERIC_GOLDS[number % len(NUMERIC_GOLDS)])
        for number, (_, text) in enumerate(hostile)
        for completion in dressed(text)
    ]


def symbolic_pairs(hostile: Sequence[Hostile]) -> list[Pair]:
    """Every answer, stated in one way, against one symbolic reference; a family's members take turns among both."""
    return [
        (dressed(text)[1 + number % 3], SYMBOLIC_GOLDS[number // 3 % len(SYMBOLIC_GOLDS)])
        for number, (_, text) in enumerate(hostile)
    ]


def test_there_are_more_than_a_thousand_distinct_hostile_answers() -> None:
    texts = [hostile.text for hostile in hostile_answers()]
    assert len(set(texts)) == len(texts) >= 1_000
    assert max(map(len, texts)) > 1_000_000


def test_hostile_answers_to_numeric_references_are_refused_quickly(symbolic: Grader) -> None:
    verdicts = check_all(symbolic, numeric_pairs(list(hostile_answers(of_each=15))))
    assert len(verdicts) >= 4_000
    assert not any(verdict.outcome is Outcome.TIMED_OUT for verdict in verdicts)


@pytest.mark.parametrize("form", [MARKED, AnswerFormat(answer_line=True), AnswerFormat(comparison="text")])
def test_short_responses_need_no_worker_and_get_the_same_verdicts(form: AnswerFormat) -> None:
    pairs = [
        (completion, gold)
        for completion, gold in numeric_pairs(list(hostile_answers(of_each=15)))
        if len(completion) <= pool.SHORT
    ]
    assert len(pairs) > 1_000
    responses, answers = zip(*pairs, strict=True)
    with Grader(symbolic=True) as grader:
        seconds = []
        for pair in pairs:
            started = time.perf_counter()
            grader.grade(*([each] for each in pair), [form])
            seconds.append(time.perf_counter() - started)
        assert not grader._pool._pool_manager.worker_manager.workers, "none was started"
        here = grader.grade(responses, answers, [form] * len(pairs))
    assert max(seconds) < 0.5, "milliseconds; a busy machine takes its time"
    assert here == [grade(response, answer, form) for response, answer in pairs]
    assert grader._graded_here("x" * (pool.SHORT + 1), "1", form) is None
    assert grader._graded_here("x", r"\frac{1}{2}", MARKED) is None


def test_a_hostile_answer_of_every_family_is_refused_for_symbolic_references(symbolic: Grader) -> None:
    check_all(symbolic, symbolic_pairs([Hostile(family.name, family.write(9)) for family in FAMILIES]))


@pytest.mark.slow
def test_a_thousand_hostile_answers_are_refused_for_symbolic_references(symbolic: Grader) -> None:
    hostile = list(hostile_answers(of_each=15))
    assert len(hostile) >= 1_000
    verdicts = check_all(symbolic, symbolic_pairs(hostile))
    # What is slow must be refused before it is tried; what slips through is for the limit on time.
    assert sum(verdict.outcome is Outcome.TIMED_OUT for verdict in verdicts) < len(verdicts) / 10


def test_ordinary_answers_are_graded_while_another_hangs(saboteur: Callable[..., Grader]) -> None:
    grader = saboteur(workers=2, limit_s=3.0)
    grader.grade(["#### 1"] * 10, ["1"] * 10)
    with timed(grader) as clock:
        verdicts = grader.grade(["spin"] + ["#### 18"] * 500, ["18"] * 501)
    assert verdicts[0].outcome is Outcome.TIMED_OUT
    assert all(verdict.correct for verdict in verdicts[1:])
    assert max(clock.done[number] for number in range(1, 501)) < clock.done[0] - 1


@pytest.mark.parametrize(
    ("sabotage", "outcome"),
    [
        ("spin", Outcome.TIMED_OUT),
        ("spin in C", Outcome.TIMED_OUT),
        ("exhaust memory", Outcome.REJECTED),
        ("overflow the stack", Outcome.REJECTED),
        ("exit", Outcome.TIMED_OUT),
    ],
)
def test_a_worker_that_fails_is_replaced_and_costs_one_verdict(
    saboteur: Callable[..., Grader], sabotage: str, outcome: Outcome
) -> None:
    # One worker, so that what follows needs its successor.
    grader = saboteur(workers=1, limit_s=2.0, memory_bytes=600 << 20)
    grader.grade(["#### 1"], ["1"])
    (first,) = workers_of(grader)
    with timed(grader) as clock:
        verdicts = grader.grade(["#### 18", sabotage, "#### 18", "#### 17"], ["18"] * 4)
    assert [verdict.outcome for verdict in verdicts] == [
        Outcome.CORRECT,
        outcome,
        Outcome.CORRECT,
        Outcome.WRONG,
    ]
    assert max(clock.seconds()) < grader.limit_s + SPARE_S
    assert not first.is_running()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_killed_while_they_wait_are_replaced(workers: int) -> None:
    with Grader(symbolic=False, workers=workers, short=None) as grader:
        for _ in range(2):
            assert grader.grade(["#### 18"], ["18"])[0].correct
            for worker in workers_of(grader):
                worker.kill()
        assert grader.grade(["#### 18", "#### 17"], ["18", "18"]) == [
            Verdict(Outcome.CORRECT, "18"),
            Verdict(Outcome.WRONG, "17"),
        ]


def test_a_worker_killed_while_it_grades_costs_one_verdict(saboteur: Callable[..., Grader]) -> None:
    grader = saboteur(workers=1, limit_s=30.0)
    grader.grade(["#### 1"], ["1"])
    (worker,) = workers_of(grader)
    killer = threading.Timer(1.0, worker.kill)
    killer.start()
    verdicts = grader.grade(["#### 18", "spin", *["#### 18"] * 500], ["18"] * 502)
    assert [verdict.outcome for verdict in verdicts[:3]] == [
        Outcome.CORRECT,
        Outcome.REJECTED,
        Outcome.CORRECT,
    ]
    assert all(verdict.correct for verdict in verdicts[2:])


def test_answers_lost_on_the_way_to_a_worker_are_graded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PATIENCE_S", 0.5)
    with Grader(symbolic=False, limit_s=0.5, short=None) as grader:
        grader.grade(["#### 1"], ["1"])
        # What a worker leaves behind that dies after it took a task and before it said so.
        monkeypatch.setattr(grader._pool, "schedule", lambda *_, **__: pebble.ProcessFuture())
        started = time.monotonic()
        assert [verdict.correct for verdict in grader.grade(["#### 18"] * 100, ["18"] * 100)] == [True] * 100
        assert time.monotonic() - started < 10


def test_workers_that_cannot_start_raise_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_start", never_starts)
    with Grader(symbolic=False, short=None) as grader, pytest.raises(RuntimeError, match="cannot be started"):
        grader.grade(["#### 18"] * 10, ["18"] * 10)


def test_a_closed_grader_leaves_no_process_and_no_waiting_thread(saboteur: Callable[..., Grader]) -> None:
    grader = saboteur(workers=2, limit_s=30.0)
    errors = []

    def ask() -> None:
        try:
            grader.grade(["#### 1", "spin"], ["1", "1"])
        except RuntimeError as error:
            errors.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    deadline = time.monotonic() + 20
    while len(workers := workers_of(grader)) < 2 or not _is_busy(workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    grader.close()
    asking.join(10)
    assert errors == ["the grader is closed"]
    assert not any(worker.is_running() for worker in [*workers, *workers_of(grader)])
    with pytest.raises(RuntimeError, match="closed"):
        grader.grade(["#### 1"], ["1"])


def _is_busy(workers: Sequence[psutil.Process]) -> bool:
    return any(worker.cpu_percent(0.1) > 20 for worker in workers)


PARENT = """
import threading, time
from cppo_lab.tasks.grading import pool
from saboteurs import sabotaged
from test_hostile_answers import workers_of

if __name__ == "__main__":
    pool._grade_one = sabotaged
    grader = pool.Grader(symbolic=False, workers=2, limit_s=2.0, short=None)
    grader.grade(["#### 1"] * 20, ["1"] * 20)
    threading.Thread(target=lambda: grader.grade(["spin"], ["1"]), daemon=True).start()
    time.sleep(0.5)
    print(*(worker.pid for worker in workers_of(grader)), flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(pool.__file__).parents[3])])
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert parent.stdout is not None
    with parent.stdout as printed:
        workers = [psutil.Process(int(pid)) for pid in printed.readline().split()]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 15
    while alive := [worker for worker in workers if _is_alive(worker)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False

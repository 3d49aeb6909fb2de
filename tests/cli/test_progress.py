"""Progress where there is no terminal: lines now and then, with rates and the longest time left."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from cppo_lab.cli.eval_progress import EvaluationProgress
from cppo_lab.cli.pace import Pace, token_speed
from cppo_lab.cli.progress import SweepProgress
from cppo_lab.eval.sampling import Sampled
from cppo_lab.sweeps.jobs import Event
from cppo_lab.training.activity import Activity

Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the time."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def to(seconds: float) -> None:
        now[0] = 100.0 + seconds

    return to


def plain() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=200, highlight=False), text


def test_lines_come_soon_and_then_more_seldom(clock: Clock) -> None:
    pace = Pace()
    due = []
    for second in range(600):
        clock(second)
        if pace.is_due():
            due.append(second)
    assert due[:4] == [5, 10, 20, 40]
    assert due[4:] == list(range(80, 600, 60))


def test_speed_is_of_tokens_with_the_longest_time_left() -> None:
    assert token_speed(0, 100, 1.0) == ""
    assert token_speed(1200, 4800, 12.0) == "1,200 tokens, 100 tokens/s, at most 36 s left"


def test_an_evaluation_tells_how_far_it_is(clock: Clock) -> None:
    console, text = plain()
    with EvaluationProgress("gsm8k", console) as progress:
        clock(30)
        progress.show(Sampled(0, 16, 0, 1600))
        for second in (31, 36, 37):
            clock(second)
            progress.show(Sampled(0, 16, 10 * (second - 30), 1600))
        clock(60)
        progress.show(Sampled(16, 16, 900, 900))
    assert text.getvalue().splitlines() == [
        "gsm8k: 0 of 16 responses",
        "gsm8k: 0 of 16 responses, 60 tokens, 10 tokens/s, at most 3 min left",
    ]


def test_a_run_tells_what_it_does_within_a_step(clock: Clock) -> None:
    console, text = plain()
    with SweepProgress({"a": "grpo seed 0"}, {"a": 3}, console) as progress:
        for second, event in (
            (0, Event("a", "started")),
            (0, Event("p", "started")),
            (6, Event("p", "warmup", (2, 10, 0.5))),
            (7, Event("a", "activity", Activity(0, "rollout", 0, 900))),
            (17, Event("a", "activity", Activity(0, "rollout", 300, 900))),
            (60, Event("a", "activity", Activity(0, "updates", 1, 4))),
            (61, Event("a", "step", (1, {}))),
            (122, Event("a", "activity", Activity(1, "start", 40, 600))),
            (260, Event("a", "activity", Activity(3, "evaluation", 0, 900))),
        ):
            clock(second)
            progress.show(event)
    lines = text.getvalue().splitlines()
    assert lines[:2] == ["grpo seed 0: started", "starting policy p: started"]
    assert lines[2:] == [
        "grpo seed 0: step 1/3, rollout, 300 tokens, 30 tokens/s, at most 20 s left",
        "grpo seed 0: step 1/3, update 2 of 4",
        "grpo seed 0: step 2/3, processes start, 40 s of at most 600",
        "grpo seed 0: step 3/3, evaluation",
    ]

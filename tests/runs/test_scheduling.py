"""How many runs a machine does at a time."""

from __future__ import annotations

import os

import pytest
import torch

from cppo_lab.compose import compose_run
from cppo_lab.runs.scheduler import default_jobs


@pytest.fixture(autouse=True)
def _eight_cores_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(("threads", "jobs"), [(1, 8), (2, 4), (3, 2), (5, 1), (16, 1)])
def test_runs_share_the_cores_by_their_threads(threads: int, jobs: int) -> None:
    assert default_jobs([compose_run([f"trainer.threads={threads}"])]) == jobs


def test_run_with_the_most_threads_decides() -> None:
    assert default_jobs([compose_run([f"trainer.threads={n}"]) for n in (1, 4, 2)]) == 2


def test_no_run_needs_nothing_but_a_number() -> None:
    assert default_jobs([]) == 8


def test_runs_on_a_gpu_are_done_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [compose_run(["trainer.device=cpu"]), compose_run(["trainer.device=cuda"])]
    assert default_jobs(configs) == 1
    assert default_jobs(configs[:1]) == 8
    found = compose_run(["trainer.device=auto"])
    assert default_jobs([found]) == 8
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_jobs([found]) == 1

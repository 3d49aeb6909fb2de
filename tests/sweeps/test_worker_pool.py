"""How many runs a machine does at a time, and in which order."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from cppo_lab.config.compose import compose_run
from cppo_lab.models import device
from cppo_lab.sweeps import worker_pool
from cppo_lab.sweeps.jobs import Event, Job, jobs_for
from cppo_lab.sweeps.worker_pool import default_jobs, run_jobs
from cppo_lab.tracking.run_folder import run_folder


@pytest.fixture(autouse=True)
def _eight_cores_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(device, "has_cuda", lambda: False)


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
    monkeypatch.setattr(device, "has_cuda", lambda: True)
    assert default_jobs([found]) == 1


def test_a_starting_policy_is_made_once_just_before_the_runs_that_need_it(tmp_path: Path) -> None:
    configs = [
        compose_run([f"paths.output='{tmp_path}'", f"warmup.seed={seed}", f"seed={seed}", f"algo={algo}"])
        for seed in (0, 1)
        for algo in ("grpo", "cppo")
    ]
    jobs = jobs_for(configs)
    assert [(job.kind, job.config.seed) for job in jobs] == [
        *(("policy", 0), ("run", 0), ("run", 0)),
        *(("policy", 1), ("run", 1), ("run", 1)),
    ]
    assert [job.needs for job in jobs if job.kind == "run"] == [jobs[0].key] * 2 + [jobs[3].key] * 2


def finished_runs(output: Path, count: int) -> list[Job]:
    """Runs in which nothing is left to do, so that a worker is done with each at once."""
    configs = [compose_run([f"paths.output='{output}'", f"seed={seed}"]) for seed in range(count)]
    for config in configs:
        folder = run_folder(config)
        folder.create(config.model_dump(mode="python"))
        folder.update_info(status="FINISHED")
    return [Job(run_folder(config).path.name, "run", config) for config in configs]


def test_worker_that_is_killed_between_two_jobs_takes_none_with_it(tmp_path: Path) -> None:
    jobs = finished_runs(tmp_path, 2)
    others = {child.pid for child in multiprocessing.active_children()}
    killed: list[int | None] = []
    started: list[str] = []

    def on_event(event: Event) -> None:
        if event.kind == "started":
            started.append(event.job)
        if event.kind == "finished" and not killed:
            (worker,) = (child for child in multiprocessing.active_children() if child.pid not in others)
            worker.kill()
            worker.join()
            killed.append(worker.pid)

    outcome = run_jobs(jobs, 1, on_event, lambda: None)
    assert outcome.failed == {}
    assert outcome.finished == started == [job.key for job in jobs]
    assert killed


def leave_at_once(*_: object) -> None:
    os._exit(3)


def test_workers_that_cannot_start_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = SpawnProcess.start

    def start_and_wait(process: SpawnProcess) -> None:
        start(process)
        process.join()

    monkeypatch.setattr(worker_pool, "_work", leave_at_once)
    monkeypatch.setattr(SpawnProcess, "start", start_and_wait)
    jobs = finished_runs(tmp_path, 2)
    outcome = run_jobs(jobs, 1, lambda _: None, lambda: None)
    assert outcome.finished == []
    assert outcome.failed == {job.key: "its process died (exit code 3)" for job in jobs}

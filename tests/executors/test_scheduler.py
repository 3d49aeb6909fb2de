"""The scheduler of workers elsewhere: what it does when they are lost, fail, or are interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cppo_lab.config.compose import compose_run
from cppo_lab.executors.remote_job import RemoteJob
from cppo_lab.executors.scheduler import Ended, Handle, RemoteScheduler, new_rows
from cppo_lab.sweeps.jobs import Event, Job
from cppo_lab.tracking.run_folder import RunFolder, run_folder

DONE, LOST, FAILED = Ended(), Ended(lost="killed by signal 9"), Ended(failed="diverged at step 2")


@dataclass
class Scripted:
    """Workers of which each attempt at a job ends as its script says."""

    script: dict[str, list[Ended]]
    folders: dict[str, RunFolder]
    submitted: list[list[str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    closed: bool = False

    def submit(self, jobs: Sequence[RemoteJob]) -> Sequence[Handle]:
        self.submitted.append([job.key for job in jobs])
        return [Attempt(self, job.key, self.script[job.key].pop(0)) for job in jobs]

    def close(self) -> None:
        self.closed = True


@dataclass
class Attempt:
    workers: Scripted
    key: str
    end: Ended

    def ended(self) -> Ended | None:
        folder = self.workers.folders[self.key]
        folder.append("metrics.jsonl", {"step": len(folder.rows("metrics.jsonl"))})
        folder.update_info(status="FINISHED" if self.end == DONE else "RUNNING")
        return self.end

    def cancel(self) -> None:
        self.workers.cancelled.append(self.key)


def made(tmp_path: Path, *scripts: list[Ended]) -> tuple[list[Job], Scripted]:
    jobs, folders = [], {}
    for seed, _ in enumerate(scripts):
        config = compose_run([f"paths.output='{tmp_path}'", f"seed={seed}"])
        folder = run_folder(config)
        folder.create(config.model_dump(mode="python"))
        folder.update_info(status="RUNNING")
        jobs.append(Job(folder.path.name, "run", config))
        folders[folder.path.name] = folder
    return jobs, Scripted({job.key: script for job, script in zip(jobs, scripts, strict=True)}, folders)


def events_of(seen: list[Event], kind: str) -> list[str]:
    return [event.job for event in seen if event.kind == kind]


@pytest.fixture
def seen() -> list[Event]:
    return []


def nothing() -> None:
    return None


def scheduler(
    jobs: Sequence[Job], workers: Scripted, seen: list[Event], parallel: int | None = None, retries: int = 2
) -> RemoteScheduler:
    return RemoteScheduler(jobs, workers, parallel, retries, seen.append)


def test_every_run_is_done_once_and_told_of(tmp_path: Path, seen: list[Event]) -> None:
    jobs, workers = made(tmp_path, [DONE], [DONE], [DONE])
    outcome = scheduler(jobs, workers, seen, parallel=2).run(nothing, 0)
    assert sorted(outcome.finished) == sorted(job.key for job in jobs)
    assert [len(each) for each in workers.submitted] == [2, 1]
    assert events_of(seen, "finished") == outcome.finished
    assert workers.closed


def test_a_lost_worker_is_replaced(tmp_path: Path, seen: list[Event]) -> None:
    (job,), workers = made(tmp_path, [LOST, LOST, DONE])
    outcome = scheduler([job], workers, seen).run(nothing, 0)
    assert outcome.finished == [job.key]
    assert events_of(seen, "lost") == [job.key] * 2


def test_a_worker_that_says_nothing_and_finished_nothing_is_lost(tmp_path: Path, seen: list[Event]) -> None:
    (job,), workers = made(tmp_path, [Ended(lost=None), DONE])
    workers.script[job.key][0] = Ended(lost="")
    assert scheduler([job], workers, seen).run(nothing, 0).finished == [job.key]
    assert [event.content for event in seen if event.kind == "lost"] == ["it ended without finishing"]


def test_a_worker_that_is_always_lost_fails_its_run_alone(tmp_path: Path, seen: list[Event]) -> None:
    (bad, good), workers = made(tmp_path, [LOST] * 3, [DONE])
    outcome = scheduler([bad, good], workers, seen).run(nothing, 0)
    assert outcome.finished == [good.key]
    assert outcome.failed == {bad.key: "its worker was lost 3 times (killed by signal 9)"}
    assert run_folder(bad.config).info["status"] == "FAILED"
    assert run_folder(bad.config).info["reason"] == outcome.failed[bad.key]


def test_a_run_that_fails_by_itself_is_not_started_again(tmp_path: Path, seen: list[Event]) -> None:
    (job,), workers = made(tmp_path, [FAILED])
    assert scheduler([job], workers, seen).run(nothing, 0).failed == {job.key: "diverged at step 2"}
    assert workers.submitted == [[job.key]]


def test_runs_wait_for_their_starting_policy_and_fail_with_it(tmp_path: Path, seen: list[Event]) -> None:
    (run,), workers = made(tmp_path, [DONE])
    policy = Job("policy", "policy", run.config)
    waiting = Job(run.key, "run", run.config, needs="policy")
    workers.script["policy"] = [FAILED]
    workers.folders["policy"] = RunFolder(tmp_path / "policy")
    (tmp_path / "policy").mkdir()
    outcome = scheduler([policy, waiting], workers, seen).run(nothing, 0)
    assert outcome.failed[run.key] == "its starting policy failed: diverged at step 2"
    assert workers.submitted == [["policy"]]


def interrupted(after: int) -> Callable[[], None]:
    calls = iter(range(after))

    def poll() -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    return poll


def test_an_interrupt_cancels_what_runs(
    tmp_path: Path, seen: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, workers = made(tmp_path, [DONE], [DONE], [DONE])
    monkeypatch.setattr(Attempt, "ended", lambda self: None)
    with pytest.raises(KeyboardInterrupt):
        scheduler(jobs, workers, seen, parallel=2).run(interrupted(2), 0)
    assert workers.cancelled == [job.key for job in jobs[:2]]
    assert workers.closed


def test_rows_are_read_once_and_a_shortened_log_is_survived(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    assert new_rows(log, 0) == ([], 0)
    log.write_text('{"step": 0}\n{"step": 1}\n{"st', encoding="utf-8")
    rows, at = new_rows(log, 0)
    assert [row["step"] for row in rows] == [0, 1]
    with log.open("a", encoding="utf-8") as file:
        file.write('ep": 2}\n')
    rows, at = new_rows(log, at)
    assert [row["step"] for row in rows] == [2]
    assert new_rows(log, at) == ([], at)
    log.write_text('{"step": 0}\n', encoding="utf-8")
    rows, at = new_rows(log, at)
    assert rows == []
    log.write_text('{"step": 0}\n{"step": 1}\n', encoding="utf-8")
    assert new_rows(log, at)[0] == [{"step": 1}]
    assert new_rows(log, 3)[0] == [{"step": 1}], "from within a line"


def test_a_run_that_goes_on_tells_its_new_steps_alone(tmp_path: Path, seen: list[Event]) -> None:
    (job,), workers = made(tmp_path, [DONE])
    for step in range(3):
        run_folder(job.config).append("metrics.jsonl", {"step": step})
    scheduler([job], workers, seen).run(nothing, 0)
    assert [event.content[0] for event in seen if event.kind == "step"] == [3]

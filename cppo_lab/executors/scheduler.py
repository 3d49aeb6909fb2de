"""Does the jobs of a sweep by workers elsewhere, each run exactly once, whatever becomes of a worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cppo_lab.executors.remote_job import RemoteJob
from cppo_lab.sweeps.jobs import Event, Job, Outcome, fail_run
from cppo_lab.tracking.run_folder import RunFolder, run_folder
from cppo_lab.training.policy_cache import missing_policy

METRICS = "metrics.jsonl"
_POLL_S = 0.2
"""Seconds between two calls of `poll`."""


@dataclass(frozen=True)
class Ended:
    """How a worker ended: `lost` says why it did not come back, `failed` why the job itself failed."""

    lost: str | None = None
    failed: str | None = None


class Handle(Protocol):
    """A job that was handed over."""

    def ended(self) -> Ended | None:
        """How it ended; None while it waits or runs."""

    def cancel(self) -> None:
        """Stop it, with a note in its run folder if it had begun."""


class Workers(Protocol):
    """An executor: takes jobs and gives a handle for each."""

    def submit(self, jobs: Sequence[RemoteJob]) -> Sequence[Handle]:
        """Hand over jobs that can start at once."""

    def close(self) -> None:
        """Release what was opened for it."""


@dataclass
class _Active:
    job: Job
    handle: Handle
    folder: RunFolder
    """Of the run; found once, since that takes its identity."""
    read: int
    """Bytes of metrics.jsonl that were told of, or were there before."""
    started: bool = False


class RemoteScheduler:
    """Keeps up to `parallel` jobs with the workers; None is no limit."""

    def __init__(
        self,
        jobs: Sequence[Job],
        workers: Workers,
        parallel: int | None,
        retries: int,
        on_event: Callable[[Event], None],
    ) -> None:
        self._waiting, self._workers = list(jobs), workers
        self._limit = len(self._waiting) if parallel is None else parallel
        self._retries, self._on_event = retries, on_event
        self._lost: dict[str, int] = {}
        self._active: list[_Active] = []
        self.outcome = Outcome()

    def run(self, poll: Callable[[], None], every_s: float) -> Outcome:
        """Do all jobs. KeyboardInterrupt cancels those that wait or run, and is raised again."""
        try:
            while self._waiting or self._active:
                self._assign()
                for active in list(self._active):
                    self._look_at(active)
                self._wait(poll, every_s)
        except KeyboardInterrupt:
            self._cancel()
            raise
        finally:
            self._workers.close()
        return self.outcome

    def _wait(self, poll: Callable[[], None], seconds: float) -> None:
        until = time.monotonic() + (seconds if self._active else 0)
        poll()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(_POLL_S, left))
            poll()

    def _assign(self) -> None:
        for job in [job for job in self._waiting if job.needs in self.outcome.failed]:
            self._waiting.remove(job)
            self._fail(job, f"its starting policy failed: {self.outcome.failed[job.needs or '']}")
        ready = [job for job in self._waiting if job.needs is None or job.needs in self.outcome.finished]
        chosen = ready[: max(0, self._limit - len(self._active))]
        if not chosen:
            return
        handles = self._workers.submit([RemoteJob.of(job) for job in chosen])
        for job, handle in zip(chosen, handles, strict=True):
            self._waiting.remove(job)
            folder = run_folder(job.config)
            self._active.append(_Active(job, handle, folder, _size(folder.path / METRICS)))

    def _look_at(self, active: _Active) -> None:
        ended = active.handle.ended()
        self._tell_progress(active, has_ended=ended is not None)
        if ended is None:
            return
        self._active.remove(active)
        job = active.job
        if ended.failed is not None:
            self._fail(job, ended.failed)
        elif (
            missing_policy(job.config) is None if job.kind == "policy" else active.folder.status == "FINISHED"
        ):
            self._end(Event(job.key, "finished"))
        else:
            self._retry(job, ended.lost or "it ended without finishing")

    def _tell_progress(self, active: _Active, has_ended: bool) -> None:
        """What is new in the run's folder."""
        job = active.job
        if not active.started and (has_ended or job.kind == "policy" or active.folder.status == "RUNNING"):
            active.started = True
            self._on_event(Event(job.key, "started"))
        if job.kind == "policy" or not active.started:
            return
        rows, active.read = new_rows(active.folder.path / METRICS, active.read)
        for row in rows:
            self._on_event(Event(job.key, "step", (row["step"], row)))

    def _retry(self, job: Job, why: str) -> None:
        lost = self._lost[job.key] = self._lost.get(job.key, 0) + 1
        if lost > self._retries:
            self._fail(job, f"its worker was lost {_times(lost)} ({why})")
        else:
            self._on_event(Event(job.key, "lost", why))
            self._waiting.insert(0, job)

    def _fail(self, job: Job, reason: str) -> None:
        fail_run(job, reason)
        self._end(Event(job.key, "failed", reason))

    def _end(self, event: Event) -> None:
        if event.kind == "finished":
            self.outcome.finished.append(event.job)
        else:
            self.outcome.failed[event.job] = event.content
        self._on_event(event)

    def _cancel(self) -> None:
        for active in self._active:
            active.handle.cancel()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def new_rows(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """The complete lines of a log from byte `start` on, and where to go on.

    A resumed run may have shortened its log.
    """
    start = min(start, _size(path))
    if start == _size(path):
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    return [row for line in whole.splitlines() if (row := _row(line))], start + len(whole)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        # The middle of a line, where the log was shortened and has grown again in between.
        return None
    return found


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"

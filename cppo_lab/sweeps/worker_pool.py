"""Trains runs in worker processes. A worker that dies takes only its own run with it.

A worker reports progress through a pipe of its own, so that one that is killed cannot hold a lock that others need; it
stops on an interrupt with a note in its run folder, and ends with its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Literal

from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.interrupts import heed_one_interrupt, let_interrupts_in, start_uninterrupted
from cppo_lab.models.device import resolved_device
from cppo_lab.plugins import load_again, loaded
from cppo_lab.sweeps.failures import DEFAULT, FailurePolicy
from cppo_lab.sweeps.jobs import Event, Job, Outcome, do_job, fail_run
from cppo_lab.tracking.run_folder import run_folder

# How often the parent polls for its own work (tracking, progress).
_POLL_S = 0.2
_STOP_S = 20.0


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    job: Job | None = None
    has_worked: bool = False


def default_jobs(configs: Sequence[RunConfig]) -> int:
    """How many of these runs to train in parallel: as many as there are cores for their threads.

    One on a GPU, and by verl, whose workers have the devices to themselves.
    """
    if any(config.backend.kind == "verl" for config in configs):
        return 1
    if any(resolved_device(config.trainer.device) == "cuda" for config in configs):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max((config.trainer.threads for config in configs), default=1))


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    on_event: Callable[[Event], None],
    poll: Callable[[], None],
    policy: FailurePolicy = DEFAULT,
) -> Outcome:
    """Do the jobs with `workers` processes. `poll` is called several times a second.

    A worker that dies takes only its own job with it. KeyboardInterrupt stops the workers, which note it in their run
    folders, and is raised again.
    """
    scheduler = _Scheduler(jobs, workers, on_event, policy)
    try:
        while scheduler.active():
            scheduler.assign()
            for event in scheduler.events():
                on_event(event)
            poll()
    finally:
        scheduler.stop()
    return scheduler.outcome


class _Scheduler:
    def __init__(
        self, jobs: Sequence[Job], workers: int, on_event: Callable[[Event], None], policy: FailurePolicy
    ) -> None:
        self._waiting = list(jobs)
        self._policy = policy
        self._failures: Counter[str] = Counter()
        self._limit = max(1, min(workers, len(jobs)))
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._on_event = on_event
        self.outcome = Outcome()

    def active(self) -> bool:
        return bool(self._waiting) or any(worker.job for worker in self._workers)

    def assign(self) -> None:
        """Give every idle worker the first job whose starting policy is ready."""
        if self._policy.fails_fast and self.outcome.failed:
            self._waiting.clear()
        for job in list(self._waiting):
            if job.needs in self.outcome.failed:
                self._waiting.remove(job)
                self._fail(job, f"its starting policy failed: {self.outcome.failed[job.needs]}")
            elif job.needs is None or job.needs in self.outcome.finished:
                worker = self._idle_worker()
                if worker is None or not self._hand_over(job, worker):
                    return
                self._waiting.remove(job)

    def _hand_over(self, job: Job, worker: _Worker) -> bool:
        """Give the job to an idle worker; False if that has died since its last job: the job waits for another one."""
        worker.job = job
        try:
            # A plug-in's classes can be unpickled once it is loaded.
            worker.connection.send((job.kind, loaded(job.config.plugins), pickle.dumps(job.config)))
        except OSError:
            # A worker that dies before its first job takes the job with it, or there would be no end of them.
            if worker.has_worked:
                worker.job = None
            self._bury(worker)
            return not worker.has_worked
        return True

    def _idle_worker(self) -> _Worker | None:
        for worker in self._workers:
            if worker.job is None:
                return worker
        if len(self._workers) >= self._limit:
            return None
        ours, theirs = self._context.Pipe()
        # Not a daemon, which could not start processes; `_end_with` and `stop` end it.
        process = self._context.Process(target=_work, args=(theirs, os.getpid()))
        # An interrupt that comes while the worker still imports would end it with a traceback; `_work` lets it in.
        start_uninterrupted(process)
        theirs.close()
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def events(self) -> Iterator[Event]:
        ready = wait([worker.connection for worker in self._workers], timeout=_POLL_S)
        for worker in [w for w in self._workers if w.connection in ready]:
            job = worker.job
            try:
                kind, content = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                self._bury(worker)
                continue
            if job is None:
                continue
            if kind in ("finished", "failed"):
                worker.job, worker.has_worked = None, True
            if kind == "finished":
                self.outcome.finished.append(job.key)
            if kind == "failed":
                kind = self._note_failure(job, content)
            yield Event(job.key, kind, content)

    def _bury(self, worker: _Worker) -> None:
        worker.process.join(timeout=5)
        self._workers.remove(worker)
        if worker.job is not None:
            code = worker.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            hint = "; the system kills the largest process when memory runs out" if code == -9 else ""
            self._fail(worker.job, f"its process died ({how}{hint})")

    def _fail(self, job: Job, reason: str) -> None:
        fail_run(job, reason)
        self._on_event(Event(job.key, self._note_failure(job, reason), reason))

    def _note_failure(self, job: Job, reason: str) -> Literal["lost", "failed"]:
        """Let a failed run wait for another try if it gets one; what is to be told of it."""
        self._failures[job.key] += 1
        if job.kind == "run" and self._policy.tries_again(run_folder(job.config), self._failures[job.key]):
            self._waiting.append(job)
            return "lost"
        if job.kind == "policy" or self._policy.is_failure(run_folder(job.config)):
            self.outcome.failed[job.key] = reason
        else:
            self.outcome.finished.append(job.key)
        return "failed"

    def stop(self) -> None:
        """Stop the workers: idle ones by closing their pipe, busy ones by an interrupt."""
        import signal

        for worker in self._workers:
            if worker.job is not None and worker.process.pid and worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGINT)
            worker.connection.close()
        deadline = time.monotonic() + _STOP_S
        for worker in self._workers:
            worker.process.join(timeout=max(0.1, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: an orphan would hold its run's lock."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(connection: Connection, parent: int) -> None:
    """A worker process: does one job after the other until the pipe closes."""
    _end_with(parent)
    heed_one_interrupt()
    try:
        let_interrupts_in()
        while True:
            kind, plugins, content = connection.recv()
            try:
                load_again(plugins)
            except UserError as error:
                connection.send(("failed", str(error)))
                continue
            do_job(kind, pickle.loads(content), lambda *message: connection.send(message))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return

"""From an executor's settings to its workers, and the jobs of a sweep done by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cppo_lab.executors.ray_tasks import RayWorkers
from cppo_lab.executors.scheduler import RemoteScheduler, Workers
from cppo_lab.executors.settings import Ray, Submitit
from cppo_lab.executors.slurm import SubmititWorkers
from cppo_lab.sweeps.jobs import Event, Job, Outcome


def open_workers(settings: Submitit | Ray, folder: Path, name: str) -> Workers:
    """The workers of an executor; `folder` is for its scripts and logs. Raises UserError where there are none."""
    return SubmititWorkers(settings, folder, name) if isinstance(settings, Submitit) else RayWorkers(settings)


def run_elsewhere(
    jobs: Sequence[Job],
    workers: Workers,
    settings: Submitit | Ray,
    parallel: int | None,
    on_event: Callable[[Event], None],
    poll: Callable[[], None],
) -> Outcome:
    """Do the jobs, up to `parallel` at a time (None: the executor's own limit)."""
    limit = settings.parallel if parallel is None else parallel
    return RemoteScheduler(jobs, workers, limit, settings.retries, on_event).run(poll, settings.poll_s)

"""The jobs of a sweep, starting policies and runs, and what one job does, wherever it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from filelock import FileLock, Timeout

from cppo_lab.config.schema import RunConfig
from cppo_lab.config.size import checkpoint_bytes
from cppo_lab.errors import first_line
from cppo_lab.files import full_disk
from cppo_lab.manifests import Damaged
from cppo_lab.quiet import quiet_libraries
from cppo_lab.tracking.run_folder import LOCK_FILE, run_folder
from cppo_lab.training.activity import Activity
from cppo_lab.training.policy_cache import missing_policy

_TELL_S = 1.0
_LOCK_PATIENCE_S = 1.0
Tell = Callable[[str, Any], None]
"""Called with the kind and the content of an `Event`."""


@dataclass(frozen=True)
class Event:
    """What happened to a job, by its key.

    `started`, `warmup` (done, planned), `activity` (what is being done within a step), `step` (step, metrics),
    `lost` (why its worker did not come back; it is started again), `finished`, `failed` (reason).
    """

    job: str
    kind: Literal["started", "warmup", "activity", "step", "lost", "finished", "failed"]
    content: Any = None


@dataclass(frozen=True)
class Job:
    """A starting policy or a run to train; a run waits for its starting policy."""

    key: str
    kind: Literal["policy", "run"]
    config: RunConfig
    needs: str | None = None


@dataclass
class Outcome:
    """Keys of the jobs that finished, and of those that failed with their reasons."""

    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def jobs_for(configs: Sequence[RunConfig]) -> list[Job]:
    """The runs in order, each missing starting policy once, just before the first run that needs it.

    An interrupted sweep has thus finished whole seeds instead of only their starting policies.
    """
    jobs: dict[str, Job] = {}
    for config in configs:
        folder = missing_policy(config)
        needs = None if folder is None else folder.name
        if needs is not None:
            jobs.setdefault(needs, Job(needs, "policy", config))
        key = run_folder(config).path.name
        jobs[key] = Job(key, "run", config, needs)
    return list(jobs.values())


def fail_run(job: Job, reason: str) -> None:
    """Note in a run's folder that it failed, if nobody else has noted how it ended, or trains it."""
    if job.kind == "run":
        folder = run_folder(job.config)
        if folder.written_at is None:
            return
        try:
            with FileLock(folder.path / LOCK_FILE, timeout=_LOCK_PATIENCE_S):
                if folder.info.get("status") != "FINISHED":
                    folder.update_info(status="FAILED", reason=reason, diverged=False)
        except (Damaged, Timeout):
            # A run.json that is damaged counts as FAILED as it is.
            return


def do_job(kind: str, config: RunConfig, tell: Tell) -> None:
    """Do a job in this process, from `started` to `finished` or `failed`.

    What stops it is told, and not raised: run.json has it as well, and other jobs go on. Only an interrupt and a
    broken pipe are raised.
    """

    def on_warmup(done: int, planned: int, loss: float) -> None:
        if done % 20 == 0 or done == planned:
            tell("warmup", (done, planned, loss))

    def on_step(step: int, metrics: Any) -> None:
        tell("step", (step, dict(metrics)))

    told_at = 0.0

    def on_activity(activity: Activity) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > _TELL_S:
            told_at = time.monotonic()
            tell("activity", activity)

    try:
        tell("started", None)
        quiet_libraries()
        if kind == "policy":
            import torch

            from cppo_lab.training.asked_model import asked_model
            from cppo_lab.training.starting_policy import starting_policy

            torch.set_num_threads(config.trainer.threads)
            task = config.task.asked_of(asked_model(config.model)).build()
            starting_policy(config, task, on_warmup)
        else:
            from cppo_lab.training.run import run

            run(config, on_step, on_warmup, wait=True, on_activity=on_activity)
    except BrokenPipeError:
        raise
    except Exception as error:
        tell("failed", full_disk(error, config.paths.output, checkpoint_bytes(config)) or first_line(error))
    else:
        tell("finished", None)

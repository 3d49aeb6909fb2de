"""Slurm through submitit: one job per run, submitted as arrays, preempted and requeued by its checkpoint hook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError, first_line
from cppo_lab.executors.remote_job import RemoteJob
from cppo_lab.executors.scheduler import Ended, Handle
from cppo_lab.executors.settings import Submitit


class SubmititHandle:
    """A job of submitit."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def ended(self) -> Ended | None:
        """As `Handle` has it. A job that left no result was killed, or its node was lost."""
        if not self._job.done():
            return None
        try:
            error = self._job.exception()
            return Ended(failed=self._job.result()) if error is None else Ended(lost=first_line(error))
        except Exception as error:
            # submitit raises what it cannot read of a killed job's folder.
            return Ended(lost=first_line(error))

    def cancel(self) -> None:
        """scancel, or an interrupt of a local job."""
        self._job.cancel(check=False)


class SubmititWorkers:
    """Submits jobs with the settings of an executor; their scripts and logs are in `folder`."""

    def __init__(self, settings: Submitit, folder: Path, name: str) -> None:
        self._executor = _executor(settings, folder, name)

    def submit(self, jobs: Sequence[RemoteJob]) -> Sequence[Handle]:
        """One array for all of them."""
        with self._executor.batch():
            submitted = [self._executor.submit(job) for job in jobs]
        return [SubmititHandle(job) for job in submitted]

    def close(self) -> None:
        """Nothing is held: jobs are Slurm's."""


def parameters(settings: Submitit, name: str) -> dict[str, Any]:
    """The options of sbatch by the names that submitit's Slurm executor knows."""
    found: dict[str, Any] = {
        "job_name": name,
        "time": settings.timeout_min,
        "cpus_per_task": settings.cpus,
        "nodes": 1,
        "ntasks_per_node": 1,
        "signal_delay_s": settings.signal_delay_s,
        "array_parallelism": settings.parallel,
        "additional_parameters": dict(settings.sbatch),
        "setup": [*settings.setup] or None,
        "gpus_per_node": settings.gpus or None,
        "mem": None if settings.memory_gb is None else f"{round(1024 * settings.memory_gb)}MB",
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
    }
    return {key: value for key, value in found.items() if value is not None}


def sbatch_script(settings: Submitit, folder: Path, name: str, jobs: int) -> str:
    """The job script that sbatch would be given for an array of `jobs` runs. Raises UserError without submitit."""
    import shlex
    import sys

    _check()
    # The only part of submitit that is used and not public.
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    array = {"map_count": jobs} if jobs > 1 else {}
    return str(_make_sbatch_string(command=command, folder=folder, **array, **parameters(settings, name)))


def _executor(settings: Submitit, folder: Path, name: str) -> Any:
    _check()
    import submitit

    if settings.cluster == "local":
        local = submitit.LocalExecutor(folder, max_num_timeout=settings.requeues)
        local.update_parameters(
            timeout_min=settings.timeout_min,
            signal_delay_s=settings.signal_delay_s,
            gpus_per_node=settings.gpus,
            setup=settings.setup,
        )
        return local
    try:
        slurm = submitit.SlurmExecutor(folder, max_num_timeout=settings.requeues)
    except RuntimeError as error:
        raise UserError(
            "executor=submitit: there is no srun on this machine, so it is not of a Slurm cluster; "
            "executor.cluster=local tries it without one, and --dry-run shows the job script."
        ) from error
    slurm.update_parameters(**parameters(settings, name))
    return slurm


def _check() -> None:
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError(
            "executor=submitit: needs submitit; install it with pip install 'cppo-lab[slurm]'."
        ) from error

"""Ray: one task per run, on this machine or a cluster whose file system all nodes share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cppo_lab.errors import UserError, first_line
from cppo_lab.executors.remote_job import RemoteJob
from cppo_lab.executors.scheduler import Ended, Handle
from cppo_lab.executors.settings import Ray

_STOP_S = 20.0


class RayHandle:
    """A task of Ray."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def ended(self) -> Ended | None:
        """As `Handle` has it. Ray tells a lost worker or node from an error of the task's own."""
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return Ended(failed=self._ray.get(self._reference))
        except self._ray.exceptions.RayTaskError as error:
            return Ended(failed=first_line(error.cause if isinstance(error.cause, Exception) else error))
        except self._ray.exceptions.RayError as error:
            return Ended(lost=first_line(error))

    def cancel(self) -> None:
        """An interrupt in the task, and a moment for it to note that."""
        self._ray.cancel(self._reference)
        self._ray.wait([self._reference], timeout=_STOP_S)


class RayWorkers:
    """Ray tasks with the resources of an executor's settings."""

    def __init__(self, settings: Ray) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "executor=ray: needs Ray; install it with pip install 'cppo-lab[ray]'."
            ) from error
        self._ray = ray
        try:
            ray.init(
                address=settings.address,
                ignore_reinit_error=True,
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"env_vars": _environment()},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"executor.address={settings.address}: Ray cannot be reached ({first_line(error)})."
            ) from error
        memory = None if settings.memory_gb is None else int(settings.memory_gb * 2**30)
        # Lost workers are started again by the scheduler, which knows what is finished.
        options = {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "memory": memory, "max_retries": 0}
        self._check_room(settings)
        self._do = ray.remote(**{key: value for key, value in options.items() if value is not None})(_do)

    def _check_room(self, settings: Ray) -> None:
        """Ray would wait for ever for what no node has."""
        has = self._ray.cluster_resources()
        for name, wanted in (("CPU", settings.cpus), ("GPU", settings.gpus)):
            if wanted > has.get(name, 0):
                known = f"{has.get(name, 0):g}"
                raise UserError(
                    f"executor.{name.lower()}s={wanted:g}: Ray has {known} in all, so no run would ever start."
                )

    def submit(self, jobs: Sequence[RemoteJob]) -> Sequence[Handle]:
        """A task for each."""
        return [RayHandle(self._ray, self._do.remote(job)) for job in jobs]

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()


def _do(job: RemoteJob) -> str | None:
    return job()


def _environment() -> dict[str, str]:
    """What a worker must have of this process's environment: where the lab is, and how it computes."""
    kept = ("PYTHONPATH", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "HF_HOME", "CPPO_LAB_OUTPUT")
    return {name: os.environ[name] for name in kept if name in os.environ}

"""A job as it travels to another process or machine. Its progress is in its run folder, which that machine writes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

from cppo_lab.config.schema import RunConfig
from cppo_lab.plugins import load_again, loaded
from cppo_lab.sweeps.jobs import Job, do_job


@dataclass(frozen=True)
class RemoteJob:
    """What is pickled: calling it does the job, and returns why it failed, or None.

    A configuration can hold classes of a plug-in, so it is pickled by itself and read once plug-ins are loaded.
    """

    key: str
    kind: str
    plugins: Any
    config: bytes = field(repr=False)

    @classmethod
    def of(cls, job: Job) -> RemoteJob:
        """The job as it travels."""
        return cls(job.key, job.kind, loaded(job.config.plugins), pickle.dumps(job.config))

    def __call__(self) -> str | None:
        load_again(self.plugins)
        config: RunConfig = pickle.loads(self.config)
        failed: list[str] = []

        def tell(kind: str, content: Any) -> None:
            if kind == "failed":
                failed.append(str(content))

        do_job(self.kind, config, tell)
        return failed[0] if failed else None

    def checkpoint(self) -> Any:
        """Called by submitit before a job is preempted or reaches its time limit: it goes on from the run's folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

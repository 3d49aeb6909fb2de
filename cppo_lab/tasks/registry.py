"""All tasks by their `kind`: the lab's own, which register themselves when imported here, and those of plug-ins."""

from __future__ import annotations

from cppo_lab.tasks import chain, custom, dapo_math, gsm8k
from cppo_lab.tasks.task import tasks

__all__ = ["chain", "custom", "dapo_math", "gsm8k", "tasks"]

"""The lab's own tasks, which register themselves when they are imported here."""

from __future__ import annotations

from cppo_lab.tasks import chain, custom, dapo_math, gsm8k, reasoning_gym
from cppo_lab.tasks.task import tasks

__all__ = ["chain", "custom", "dapo_math", "gsm8k", "reasoning_gym", "tasks"]

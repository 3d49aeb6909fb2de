"""From a task's configuration to the task."""

from __future__ import annotations

from cppo_lab.config import ChainTask as ChainConfig
from cppo_lab.config import Gsm8kTask as Gsm8kConfig
from cppo_lab.tasks.chain import ChainTask
from cppo_lab.tasks.gsm8k import Gsm8kTask
from cppo_lab.tasks.problem import Task


def build_task(config: ChainConfig | Gsm8kConfig) -> Task:
    """The task that `config` describes. Data files are read when first needed."""
    if isinstance(config, ChainConfig):
        return ChainTask(
            steps=config.steps,
            heldout=config.heldout,
            multiply_probability=config.multiply_probability,
        )
    return Gsm8kTask(
        path=config.path,
        heldout_path=config.heldout_path,
        heldout=config.heldout,
        revision=config.revision,
    )

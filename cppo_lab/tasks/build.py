"""From a task's configuration to the task."""

from __future__ import annotations

from cppo_lab.config.schema import ChainTask as ChainConfig
from cppo_lab.config.schema import DapoMathTask as DapoMathConfig
from cppo_lab.config.schema import Gsm8kTask as Gsm8kConfig
from cppo_lab.tasks.chain import ChainTask
from cppo_lab.tasks.dapo_math import DapoMathTask
from cppo_lab.tasks.gsm8k import Gsm8kTask
from cppo_lab.tasks.problem import Task


def build_task(config: ChainConfig | Gsm8kConfig | DapoMathConfig) -> Task:
    """The task that `config` describes. Data files are read when first needed."""
    if isinstance(config, ChainConfig):
        return ChainTask(
            steps=config.steps,
            heldout=config.heldout,
            multiply_probability=config.multiply_probability,
        )
    if isinstance(config, DapoMathConfig):
        return build_dapo_math(config)
    return Gsm8kTask(
        path=config.path,
        heldout_path=config.heldout_path,
        heldout=config.heldout,
        revision=config.revision,
    )


def build_dapo_math(config: DapoMathConfig) -> DapoMathTask:
    """DAPO-Math as `config` describes it."""
    return DapoMathTask(
        path=config.path,
        heldout_paths={name: config.heldout_paths.of(name) for name in config.benchmarks},
        prompt=config.prompt,
        revision=config.revision,
    )


def check_local_files(config: ChainConfig | Gsm8kConfig | DapoMathConfig) -> None:
    """Read what a task has on this machine, and nothing of the hub. Raises UserError where it cannot be used."""
    if isinstance(config, DapoMathConfig):
        build_dapo_math(config).check_files()
    elif isinstance(config, ChainConfig) or config.path or config.heldout_path:
        build_task(config).heldout_problems()

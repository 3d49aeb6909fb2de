"""Everything of verl that the lab uses and verl does not promise to keep, in one place."""

from __future__ import annotations

import inspect
from typing import Any

TESTED = "0.9.1"
"""The version of verl that the lab is tested with; another is refused."""

PARTS = {
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._setup": ("self",),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._init_dataloader": ("self",),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._init_resource_pool_mgr": ("self",),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._load_checkpoint": ("self",),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._build_replay_buffer": ("self",),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_advantage": ("self", "batch", "metrics"),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._update_actor": ("self", "batch", "metrics"),
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead.prepare_model_outputs": (
        "self",
        "output",
        "output_args",
        "micro_batch",
        "logits_processor_func",
    ),
    "verl.workers.engine_workers:TrainingWorker.train_batch": ("self", "data"),
    "verl.workers.engine_workers:TrainingWorker.infer_batch": ("self", "data"),
    "verl.workers.rollout.base:_ROLLOUT_REGISTRY": None,
}
"""`module:name` of each part, with its parameters where it is a function."""


def changed() -> list[str]:
    """The parts that the installed verl lacks or has with other parameters, one sentence each."""
    found = []
    for path, expected in PARTS.items():
        try:
            part = _part(path)
        except (ImportError, AttributeError):
            found.append(f"verl has no {path} any more.")
            continue
        if expected is not None:
            has = tuple(inspect.signature(inspect.unwrap(part)).parameters)
            if has != expected:
                found.append(f"{path} takes {', '.join(has)} now, and no longer {', '.join(expected)}.")
    return found


def _part(path: str) -> Any:
    import importlib

    module, _, name = path.partition(":")
    part: Any = importlib.import_module(module)
    for each in name.split("."):
        part = getattr(part, each)
    return part


def register_rollout_adapter(name: str, target: str) -> None:
    """Make `target` (a class by its dotted name) the worker's side of the rollout `name`."""
    from verl.workers.rollout import base

    base._ROLLOUT_REGISTRY[(name, "async")] = target

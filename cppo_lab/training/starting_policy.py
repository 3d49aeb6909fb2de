"""Starting policies: warmed up once, cached by the hash of their recipe, shared by every run that asks."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from cppo_lab.config.identity import starting_policy_id
from cppo_lab.config.schema import RunConfig
from cppo_lab.models.config import PretrainedModel, ScratchModel
from cppo_lab.models.device import resolved_device
from cppo_lab.models.loading import Policy, load_policy
from cppo_lab.models.tokenizers import trained_tokenizer, vocabulary_tokenizer
from cppo_lab.tasks.task import Task
from cppo_lab.training.checkpoint import save_checkpoint
from cppo_lab.training.warmup import Progress, warm_up

RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class StartingPolicy:
    """Where a starting policy lies. `accuracy` is that on warm-up problems, None where none was measured."""

    path: str
    recipe: str
    accuracy: float | None


def cache_folder(config: RunConfig) -> Path:
    """The folder in which the starting policy of `config` is, or will be, cached."""
    return config.paths.output / "policies" / starting_policy_id(config)


def is_ready(config: RunConfig) -> bool:
    """Whether the run can start at once: its starting policy is pretrained, or cached."""
    return isinstance(config.model, PretrainedModel) or (cache_folder(config) / RECIPE_FILE).is_file()


def starting_policy(config: RunConfig, task: Task, progress: Progress | None = None) -> StartingPolicy:
    """The starting policy of a run; the first caller makes it, others wait for it under a file lock."""
    if isinstance(config.model, PretrainedModel):
        return StartingPolicy(config.model.path, starting_policy_id(config), None)
    folder = cache_folder(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / RECIPE_FILE).is_file():
            _make(config, config.model, task, folder, progress)
    recipe = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    return StartingPolicy(str(folder), folder.name, recipe["accuracy"])


def _make(
    config: RunConfig, model: ScratchModel, task: Task, folder: Path, progress: Progress | None
) -> None:
    from cppo_lab.models.scratch import scratch_policy

    if config.task.vocabulary:
        tokenizer = vocabulary_tokenizer(config.task.vocabulary)
    else:
        tokenizer = trained_tokenizer(task.supervised_texts(), model.vocabulary)
    network = scratch_policy(model, tokenizer, config.warmup.seed)
    policy = Policy(network.to(resolved_device(config.trainer.device)), tokenizer)
    accuracy = warm_up(policy, task, config.warmup, config.task.response_limit, progress)
    save_checkpoint(folder, policy)
    recipe = {
        "model": config.model.model_dump(),
        "warmup": config.warmup.model_dump(),
        "task": config.task.model_dump(),
        "accuracy": accuracy,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    # Written last: the folder counts as complete only with it.
    (folder / RECIPE_FILE).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def load_starting_policy(config: RunConfig, start: StartingPolicy, checkpoint: Path | None = None) -> Policy:
    """The starting policy, or a checkpoint of the run that began with it, on the run's device.

    Weights are float32, whatever dtype a pretrained model computes in: an update of a millionth of a weight is
    lost in bfloat16.
    """
    device = resolved_device(config.trainer.device)
    path = start.path if checkpoint is None else str(checkpoint)
    if not isinstance(config.model, PretrainedModel):
        return load_policy(path, device=device)
    revision = config.model.revision if checkpoint is None else None
    policy = load_policy(path, revision=revision, device=device)
    if config.model.gradient_checkpointing:
        network = policy.network
        # transformers 5.20 gave it the new name.
        getattr(network, "activation_checkpointing_enable", network.gradient_checkpointing_enable)()
    return replace(policy, dtype=config.model.dtype)

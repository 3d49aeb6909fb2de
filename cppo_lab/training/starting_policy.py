"""Starting policies: warmed up once, cached by the hash of their recipe, and shared by all runs that use it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from cppo_lab.config.identity import starting_policy_id
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.failpoints import failpoint
from cppo_lab.files import read_object
from cppo_lab.manifests import Damaged, check_manifest
from cppo_lab.models.config import PretrainedModel, ScratchModel
from cppo_lab.models.device import resolved_device
from cppo_lab.models.implementation import implement
from cppo_lab.models.loading import Policy, load_policy
from cppo_lab.models.lora import ADAPTER_FOLDER, Lora, add_adapter, load_adapter
from cppo_lab.models.tokenizers import trained_tokenizer, vocabulary_tokenizer
from cppo_lab.tasks.task import Task, TaskConfig
from cppo_lab.training.checkpoint import save_checkpoint
from cppo_lab.training.policy_cache import RECIPE_FILE, cache_folder, is_as_it_is
from cppo_lab.training.warmup import SCRATCH_RAMP, Progress, warm_up

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class StartingPolicy:
    """The path of a starting policy. `accuracy` is measured on warm-up problems; None if it was not measured.

    `revision` is that of a hub model.
    """

    path: str
    recipe: str
    accuracy: float | None
    revision: str | None = None


def starting_policy(config: RunConfig, task: Task, progress: Progress | None = None) -> StartingPolicy:
    """The starting policy of a run. The first caller trains it; others wait for it on a file lock.

    `task` is the run's as its model is asked.
    """
    if isinstance(config.model, PretrainedModel) and is_as_it_is(config):
        return StartingPolicy(config.model.path, starting_policy_id(config), None, config.model.revision)
    folder = cache_folder(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / RECIPE_FILE).is_file():
            _make(config, task, folder, progress)
    recipe = _checked_recipe(folder)
    return StartingPolicy(str(folder), folder.name, recipe["accuracy"])


def _checked_recipe(folder: Path) -> dict[str, Any]:
    """The recipe of a cached starting policy, all of whose files are as they were written.

    Raises UserError for one that is damaged, or that was made by another recipe.
    """
    remedy = f"remove the folder, rm -r {folder}, and the same command makes it again"
    check_manifest(folder, remedy)
    recipe = read_object(folder / RECIPE_FILE)
    if recipe.get("id", folder.name) != folder.name:
        raise Damaged(f"{folder}: holds the starting policy {recipe['id']}, a copy of another one; {remedy}.")
    if "accuracy" not in recipe:
        raise Damaged(f"{folder / RECIPE_FILE}: is damaged (it has no accuracy); {remedy}.")
    return recipe


def _make(config: RunConfig, task: Task, folder: Path, progress: Progress | None) -> None:
    policy = _untrained(config, task)
    # A from-scratch model's first steps would be too large without a ramp.
    ramp = 1 if config.model.is_pretrained else SCRATCH_RAMP
    accuracy = warm_up(policy, task, config.warmup, config.task.response_limit, progress, ramp)
    recipe = {
        "id": folder.name,
        "model": config.model.model_dump(),
        "warmup": config.warmup.model_dump(),
        "task": config.task.model_dump(),
        "accuracy": accuracy,
        "parameters": sum(parameter.numel() for parameter in policy.network.parameters()),
    }
    save_checkpoint(folder, policy, texts={RECIPE_FILE: json.dumps(recipe, indent=2) + "\n"})
    failpoint("policy-saved")


def _untrained(config: RunConfig, task: Task) -> Policy:
    """The model before its warm-up, on the run's device."""
    model, device = config.model, resolved_device(config.trainer.device)
    if isinstance(model, PretrainedModel):
        return _computed(load_policy(model.path, revision=model.revision, device=device), model)
    from cppo_lab.models.scratch import scratch_policy

    tokenizer = scratch_tokenizer(model, config.task, task)
    return Policy(scratch_policy(model, tokenizer, config.warmup.seed).to(device), tokenizer)


def scratch_tokenizer(model: ScratchModel, config: TaskConfig, task: Task) -> PreTrainedTokenizerFast:
    """The tokenizer of a from-scratch model on a task: the task's vocabulary, or trained on its solutions."""
    if config.vocabulary:
        return vocabulary_tokenizer(config.vocabulary)
    return trained_tokenizer(task.supervised_texts(), model.vocabulary)


def load_starting_policy(config: RunConfig, start: StartingPolicy, checkpoint: Path | None = None) -> Policy:
    """The starting policy, or a checkpoint of a run that started from it, on the run's device, with its adapter if any.

    Weights are float32, whatever dtype a pretrained model computes in: an update of a millionth of a weight is
    lost in bfloat16.
    """
    adapter = _adapter(config)
    if adapter is not None:
        policy = _whole(config, start, None)
        add_adapter(policy.network, adapter)
        if checkpoint is not None:
            load_adapter(policy.network, checkpoint / ADAPTER_FOLDER)
        return policy
    return _whole(config, start, checkpoint)


def _adapter(config: RunConfig) -> Lora | None:
    trainer = config.trainer
    if not trainer.lora_rank:
        return None
    return Lora(trainer.lora_rank, trainer.lora_alpha, trainer.lora_targets, config.seed)


def _whole(config: RunConfig, start: StartingPolicy, checkpoint: Path | None) -> Policy:
    """The starting policy or a checkpoint, all of whose weights are trained."""
    device = resolved_device(config.trainer.device)
    path = start.path if checkpoint is None else str(checkpoint)
    if not isinstance(config.model, PretrainedModel):
        policy = load_policy(path, device=device)
        implement(policy.network, config.model.implementation)
        return policy
    policy = load_policy(path, revision=start.revision if checkpoint is None else None, device=device)
    return _computed(policy, config.model)


def _computed(policy: Policy, model: PretrainedModel) -> Policy:
    """A pretrained policy, computed as its configuration says. Raises UserError where the lab's decoder cannot."""
    try:
        implement(policy.network, model.implementation)
    except ValueError as error:
        raise UserError(f"model.implementation={model.implementation}: {error}.") from error
    if model.gradient_checkpointing:
        network = policy.network
        # transformers 5.20 gave it the new name.
        getattr(network, "activation_checkpointing_enable", network.gradient_checkpointing_enable)()
    return replace(policy, dtype=model.dtype)

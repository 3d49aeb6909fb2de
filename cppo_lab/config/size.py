"""How large the networks of a run are, and which runs take equally long per step."""

from __future__ import annotations

from pathlib import Path

from cppo_lab.config.identity import digest
from cppo_lab.config.schema import RunConfig
from cppo_lab.models.config import PretrainedModel
from cppo_lab.models.device import resolved_device
from cppo_lab.models.folders import folder_parameters
from cppo_lab.models.shapes import known_shape
from cppo_lab.models.tokenizers import SPECIALS


def parameter_count(config: RunConfig) -> int | None:
    """Parameters of the policy; None for a hub model of unknown shape."""
    model = config.model
    if isinstance(model, PretrainedModel):
        counted = folder_parameters(Path(model.path))
        shape = known_shape(model.path) if counted is None else None
        return counted if shape is None else shape.parameters
    vocabulary = config.task.vocabulary
    return model.shape(len(SPECIALS) + len(vocabulary) if vocabulary else model.vocabulary).parameters


def active_parameter_count(config: RunConfig) -> int | None:
    """Parameters that one token uses: fewer than all of them in a mixture of experts; None for an unknown shape."""
    model = config.model
    if isinstance(model, PretrainedModel):
        shape = known_shape(model.path)
        return None if shape is None else shape.active_parameters
    vocabulary = config.task.vocabulary
    return model.shape(len(SPECIALS) + len(vocabulary) if vocabulary else model.vocabulary).active_parameters


def trained_networks(config: RunConfig) -> int:
    """The policy, and a critic that shares no weights with it."""
    return 1 + (config.algo.requirements.needs_values and config.algo.critic.backbone == "separate")


def state_bytes(config: RunConfig) -> int | None:
    """Bytes that training always holds: float32 weights, gradients and AdamW's two moments of every trained network,
    and the weights of a reference policy; of networks with an adapter, which is small, the weights alone. None if the
    model's size is unknown.
    """
    parameters = parameter_count(config)
    trained, reference = 4 if config.trainer.lora_rank else 16, 4 * config.algo.requirements.needs_reference
    return None if parameters is None else parameters * (trained * trained_networks(config) + reference)


def checkpoint_bytes(config: RunConfig) -> int | None:
    """What a checkpoint to go on from takes on disk: float32 weights, and the optimizer's moments of every trained
    network; of networks with an adapter, whose moments are small, the weights alone. None for a model of unknown size.
    """
    parameters = parameter_count(config)
    moments = 0 if config.trainer.lora_rank else 2 * trained_networks(config)
    return None if parameters is None else 4 * parameters * (1 + moments)


def disk_bytes(config: RunConfig) -> int | None:
    """What a finished run keeps on disk, but for logs: its last checkpoint, and the weights of the best one."""
    parameters, checkpoint = parameter_count(config), checkpoint_bytes(config)
    return None if parameters is None or checkpoint is None else checkpoint + 4 * parameters


def cost_key(config: RunConfig) -> str:
    """Equal for runs that agree in everything that sets the time of a step."""
    model, trainer, algo = config.model, config.trainer, config.algo
    needs = algo.requirements
    # The one implementation that earlier runs have does not count: their times stay known.
    unnamed = {"name"} | ({"implementation"} if model.implementation == "transformers" else set())
    samples = config.task.heldout_sampling.samples
    return digest(
        {
            "model": model.model_dump(exclude=unnamed),
            "task": config.task.kind,
            "response_limit": config.task.response_limit,
            "evaluated": (
                trainer.evaluate_every,
                trainer.evaluation_problems or config.task.heldout_count,
                *((samples,) if samples > 1 else ()),
                *(("greedy",) if trainer.evaluate_greedy else ()),
            ),
            "sampled": (trainer.prompts_per_step, trainer.group_size, algo.dynamic_sampling.kind),
            "trained": (trainer.updates_per_step, trainer.epochs),
            "engine": config.engine.speed_key,
            "device": (resolved_device(trainer.device), trainer.threads),
            "critic": algo.critic.backbone if needs.needs_values else None,
            "reference": needs.needs_reference,
            "distribution": needs.needs_topk or needs.needs_full_distribution,
        }
    )

"""From a run's configuration to verl's, or to why it cannot be. Pure; imports neither verl nor Ray.

The lab's loop decides prompts, rewards, advantages, minibatches, the loss, learning rates and evaluations. What verl
is told is how to hold the model, compute it, optimise it, and sample from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cppo_lab.config.backend import VerlBackend
from cppo_lab.config.schema import RunConfig
from cppo_lab.models.config import PretrainedModel

UNCLIPPED = 1e30
"""verl always clips gradients; no norm is above this."""
_ROLLOUTS = {"native": "cppo_lab", "vllm": "vllm"}
_PROMPT_TOKENS = 8192
"""The longest prompt that verl's servers make room for."""


@dataclass(frozen=True)
class Translation:
    """Overrides of verl's own configuration (`ppo_trainer`), or refusals, one sentence each."""

    overrides: tuple[str, ...]
    refusals: tuple[str, ...]


def translate(config: RunConfig, start: str) -> Translation:
    """What verl is told of a run whose starting policy lies at `start`. The run must have backend=verl."""
    backend = config.backend
    assert isinstance(backend, VerlBackend), "the caller checked it"
    told = tuple(f"{key}={_text(value)}" for key, value in _settings(config, backend, start).items())
    return Translation(told, tuple(_refusals(config, backend)))


def _refusals(config: RunConfig, backend: VerlBackend) -> Iterator[str]:
    needs, name, trainer = config.algo.requirements, config.algo.name, config.trainer
    if needs.needs_values:
        yield f"algo={name}: trains a critic, which backend=verl does not hold."
    if needs.needs_full_distribution:
        yield f"algo={name}: reads the sampler's whole distribution, which would have to travel for every token."
    if needs.needs_statistics:
        yield f"algo={name}: reads statistics of the whole minibatch before its update, which workers see a part of."
    if backend.device == "cpu" and trainer.threads != 1:
        yield f"trainer.threads={trainer.threads}: must be 1; give backend.workers, each of which has one thread."
    if trainer.microbatch_tokens is not None:
        yield (
            f"trainer.microbatch_tokens={trainer.microbatch_tokens}: must be null; give backend.tokens_per_pass, which "
            "bounds the tokens of each GPU."
        )
    if trainer.lora_rank:
        yield f"trainer.lora_rank={trainer.lora_rank}: must be 0; adapters are not trained by backend=verl."
    if config.engine.kind not in _ROLLOUTS:
        allowed = " and ".join(_ROLLOUTS)
        yield f"engine.kind={config.engine.kind}: has no rollout server for verl; allowed are {allowed}."
    if config.engine.kind == "vllm" and backend.device == "cpu":
        yield "engine.kind=vllm: verl's vLLM server needs GPUs; give engine=native with backend.device=cpu."
    if config.engine.kind == "vllm" and not config.engine.is_exact:
        yield f"engine.weights={config.engine.weights}: must be 'same', since the same servers answer evaluations."
    if config.engine.kind == "native" and backend.tensor_parallel > 1:
        yield (
            f"backend.tensor_parallel={backend.tensor_parallel}: must be 1 for engine.kind=native, which samples on "
            "one device."
        )
    if config.model.kind == "scratch" and config.model.experts and backend.device == "cpu":
        yield f"model={config.model.name}: a mixture of experts is not trained by backend=verl on a CPU."


def _settings(config: RunConfig, backend: VerlBackend, start: str) -> Mapping[str, Any]:
    trainer, limit = config.trainer, config.task.response_limit
    on_cpu = backend.device == "cpu"
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    precision = {"param_dtype": _short(config.model.dtype), "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    found: dict[str, Any] = {
        "trainer.device": backend.device,
        "trainer.nnodes": backend.nodes,
        "trainer.n_gpus_per_node": backend.per_node,
        "trainer.total_training_steps": trainer.steps,
        "trainer.logger": [],
        "trainer.resume_mode": "disable",
        "data.train_batch_size": trainer.prompts_per_step,
        "data.max_prompt_length": _PROMPT_TOKENS,
        "data.max_response_length": limit,
        # verl refuses a path that ends in a slash.
        "actor_rollout_ref.model.path": start.rstrip("/"),
        "actor_rollout_ref.model.use_remove_padding": not on_cpu,
        "actor_rollout_ref.model.enable_gradient_checkpointing": _checkpoints(config),
        f"{actor}.strategy": "fsdp2",
        f"{actor}.use_torch_compile": False,
        f"{actor}.fsdp_config.use_torch_compile": False,
        f"{actor}.fsdp_config.model_dtype": "fp32",
        f"+{actor}.fsdp_config.mixed_precision": precision,
        f"{actor}.fsdp_config.param_offload": backend.offload,
        f"{actor}.fsdp_config.optimizer_offload": backend.offload,
        f"{actor}.optim.lr": trainer.lr,
        f"{actor}.optim.betas": list(trainer.betas),
        f"{actor}.optim.weight_decay": trainer.weight_decay,
        f"{actor}.optim.clip_grad": trainer.grad_clip or UNCLIPPED,
        f"{actor}.ppo_mini_batch_size": trainer.prompts_per_minibatch,
        f"{actor}.ppo_epochs": trainer.epochs,
        f"{actor}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        f"{actor}.use_kl_loss": config.algo.requirements.needs_reference,
        f"{rollout}.name": _ROLLOUTS.get(config.engine.kind, config.engine.kind),
        f"{rollout}.n": trainer.group_size,
        f"{rollout}.temperature": trainer.temperature,
        f"{rollout}.top_p": config.engine.sampling_top_p,
        f"{rollout}.calculate_log_probs": True,
        f"{rollout}.tensor_model_parallel_size": backend.tensor_parallel,
        f"{rollout}.load_format": "auto",
        "algorithm.use_kl_in_reward": False,
        "critic.enable": False,
        "reward.num_workers": 1,
    }
    found |= _passes(backend, trainer.microbatch_sequences)
    if on_cpu:
        found["+actor_rollout_ref.model.override_config.attn_implementation"] = "eager"
    return found | _sampler(config, backend, rollout)


def _passes(backend: VerlBackend, sequences: int | None) -> dict[str, Any]:
    """How much goes through the model at once: verl asks the same for three kinds of passes."""
    actor, rollout, ref = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "ref"))
    tokens = None if backend.device == "cpu" else backend.tokens_per_pass
    found: dict[str, Any] = {
        f"{actor}.use_dynamic_bsz": tokens is not None,
        f"{rollout}.log_prob_use_dynamic_bsz": tokens is not None,
        f"{ref}.log_prob_use_dynamic_bsz": tokens is not None,
    }
    if tokens is None:
        return found | {
            f"{actor}.ppo_micro_batch_size_per_gpu": sequences or 1,
            f"{rollout}.log_prob_micro_batch_size_per_gpu": sequences or 1,
            f"{ref}.log_prob_micro_batch_size_per_gpu": sequences or 1,
        }
    return found | {
        f"{actor}.ppo_max_token_len_per_gpu": tokens,
        f"{rollout}.log_prob_max_token_len_per_gpu": tokens,
        f"{ref}.log_prob_max_token_len_per_gpu": tokens,
    }


def _sampler(config: RunConfig, backend: VerlBackend, rollout: str) -> dict[str, Any]:
    engine = config.engine
    if engine.kind == "native":
        return {
            f"{rollout}.free_cache_engine": False,
            f"+{rollout}.custom": {
                "device": backend.device,
                "implementation": config.model.implementation,
                "weights": "bfloat16"
                if engine.is_exact and config.model.dtype == "bfloat16"
                else engine.weights,
                "batch_size": engine.batch_size,
            },
        }
    return {
        f"{rollout}.free_cache_engine": True,
        f"{rollout}.dtype": config.model.dtype,
        f"{rollout}.gpu_memory_utilization": engine.gpu_memory_share or 0.5,
        f"{rollout}.max_num_seqs": engine.batch_size,
        f"{rollout}.enforce_eager": bool(getattr(engine, "enforce_eager", False)),
        f"+{rollout}.engine_kwargs.vllm.max_logprobs": max(20, config.algo.requirements.needs_topk or 0),
    }


def _checkpoints(config: RunConfig) -> bool:
    return isinstance(config.model, PretrainedModel) and config.model.gradient_checkpointing


def _short(dtype: str) -> str:
    return {"float32": "fp32", "bfloat16": "bf16"}[dtype]


def _text(value: Any) -> str:
    """A value in Hydra's grammar of overrides."""
    if isinstance(value, str):
        return json.dumps(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return repr(value)

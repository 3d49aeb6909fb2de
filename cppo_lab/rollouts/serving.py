"""A model that is sampled from and not trained, for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cppo_lab.models.config import Dtype
from cppo_lab.models.context import context_length
from cppo_lab.models.implementation import implement
from cppo_lab.models.loading import ModelSource, Policy, load_policy
from cppo_lab.rollouts.rollout import Sampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from cppo_lab.rollouts.engine_config import EngineConfig


@dataclass(frozen=True)
class ServedModel:
    """A running sampler with the model's tokenizer and its context in tokens.

    `generation_config` is transformers' `GenerationConfig`, or None where the model has none; `parameters` is None
    where they were not counted.
    """

    sampler: Sampler
    tokenizer: PreTrainedTokenizerBase
    context: int
    generation_config: Any
    parameters: int | None = None


def serve(config: EngineConfig, source: ModelSource, dtype: Dtype) -> ServedModel:
    """Load the policy at `source` and let an engine built by `config` sample from it. Raises UserError."""
    policy = load_policy(source.path, revision=source.revision, device=source.device)
    implement(policy.network, source.implementation)
    return serve_policy(config, replace(policy, dtype=dtype), source)


def serve_policy(config: EngineConfig, policy: Policy, source: ModelSource) -> ServedModel:
    """An engine built by `config` samples from a policy that was loaded from `source`."""
    return ServedModel(
        sampler=config.build(policy, source),
        tokenizer=policy.tokenizer,
        context=context_length(policy.network.config, policy.tokenizer),
        generation_config=getattr(policy.network, "generation_config", None),
        parameters=sum(parameter.numel() for parameter in policy.network.parameters()),
    )

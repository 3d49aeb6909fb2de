"""A model that vLLM alone loads, for evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cppo_lab.errors import UserError, first_line
from cppo_lab.models.config import Dtype
from cppo_lab.models.context import context_length
from cppo_lab.models.loading import ModelSource, check_ends
from cppo_lab.rollouts.serving import ServedModel
from cppo_lab.rollouts.vllm.engine import VllmSampler
from cppo_lab.rollouts.vllm.support import check_served

if TYPE_CHECKING:
    from cppo_lab.rollouts.vllm_config import VllmConfig


def serve(config: VllmConfig, source: ModelSource, dtype: Dtype) -> ServedModel:
    """Start vLLM on the model at `source`.

    Raises UserError where vLLM cannot serve it, or its tokenizer cannot be loaded.
    """
    tokenizer, model_config, generation_config = _without_weights(source)
    check_served(f"model {source.path}", model_config.to_dict(), source.device)
    context = context_length(model_config, tokenizer)
    pad = tokenizer.pad_token_id
    sampler = VllmSampler(
        config.offline_settings(source, context, dtype, decodes=True),
        eos_token=tokenizer.eos_token_id,
        pad_token=tokenizer.eos_token_id if pad is None else pad,
        vocabulary=int(model_config.get_text_config().vocab_size),
        device=torch.device("cpu"),
    )
    return ServedModel(sampler, tokenizer, sampler.context, generation_config)


def _without_weights(source: ModelSource) -> tuple[Any, Any, Any]:
    """The model's tokenizer, configuration and generation configuration."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    path, revision = source.path, source.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
        config = AutoConfig.from_pretrained(path, revision=revision)
    except Exception as error:
        # transformers and the hub client raise many types: offline, no such id, broken files.
        raise UserError(f"model {path}: cannot be loaded: {first_line(error)}") from error
    check_ends(tokenizer, path)
    try:
        generation_config = GenerationConfig.from_pretrained(path, revision=revision)
    except OSError:
        # A model without the file has the settings of its configuration.
        generation_config = GenerationConfig.from_model_config(config)
    return tokenizer, config, generation_config

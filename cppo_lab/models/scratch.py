"""The from-scratch ladder: Qwen3 models in Hugging Face format, small enough for one CPU core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cppo_lab.rng import Stream, torch_stream

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from cppo_lab.models.config import ScratchModel


def model_config(model: ScratchModel, tokenizer: PreTrainedTokenizerFast) -> Any:
    """The transformers configuration of a from-scratch model: Qwen3, or Qwen3-MoE with experts."""
    from transformers import Qwen3Config, Qwen3MoeConfig

    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.feed_forward,
        "max_position_embeddings": model.context,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "attention_dropout": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "dtype": "float32",
    }
    if model.experts:
        return Qwen3MoeConfig(
            **shared,
            num_experts=model.experts,
            num_experts_per_tok=model.experts_per_token,
            moe_intermediate_size=model.expert_feed_forward,
            decoder_sparse_step=1,
            norm_topk_prob=True,
        )
    return Qwen3Config(**shared)


def initialise(network: PreTrainedModel, seed: int) -> None:
    """Draw all matrices from N(0, 1/(4 d)) and the embedding from N(0, 1/d), where d is the model's width."""
    import torch

    generator = torch_stream(seed, Stream.INITIALISATION)
    deviation = network.config.hidden_size**-0.5
    embedding = network.get_input_embeddings().weight
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter is embedding:
                parameter.normal_(0.0, deviation, generator=generator)
            elif parameter.dim() >= 2:
                parameter.normal_(0.0, deviation / 2, generator=generator)


def scratch_policy(model: ScratchModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A randomly initialised float32 model; the same seed gives the same weights."""
    from transformers import AutoModelForCausalLM

    from cppo_lab.models.implementation import implement

    network = AutoModelForCausalLM.from_config(model_config(model, tokenizer), attn_implementation="sdpa")
    network.generation_config.pad_token_id = tokenizer.pad_token_id
    initialise(network, seed)
    implement(network, model.implementation)
    return network.eval()

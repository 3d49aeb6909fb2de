"""Who computes a network: transformers, or the lab's own decoder."""

from __future__ import annotations

from typing import Any

from torch import nn

from cppo_lab.models.config import Implementation

_ATTRIBUTE = "cppo_lab_implementation"


def implement(network: nn.Module, implementation: Implementation) -> None:
    """Let `network`, and copies of it, be computed by `implementation`; weights and their format stay as they are.

    Raises ValueError for the lab's decoder where `network` is no dense Qwen3 or Llama model with plain rotary
    embeddings.
    """
    if implementation == "lab" and not _is_known(network):
        raise ValueError(
            f"{type(network).__name__}: the lab's decoder computes dense Qwen3 and Llama models with plain rotary "
            "embeddings alone"
        )
    setattr(network, _ATTRIBUTE, implementation)


def is_by_lab(network: nn.Module) -> bool:
    """Whether the lab's own decoder computes `network`."""
    return getattr(network, _ATTRIBUTE, "transformers") == "lab"


def _is_known(network: nn.Module) -> bool:
    config: Any = getattr(network, "config", None)
    return (
        type(network).__name__ in ("Qwen3ForCausalLM", "LlamaForCausalLM")
        and config.rope_parameters["rope_type"] == "default"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not getattr(config, "mlp_bias", False)
        and not getattr(config, "use_sliding_window", False)
    )

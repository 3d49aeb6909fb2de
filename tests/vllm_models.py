"""Small models that vLLM's CPU build serves, and engines on them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from text_models import byte_tokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from cppo_lab.models.context import context_length
from cppo_lab.models.loading import Policy
from cppo_lab.rollouts.vllm.engine import VllmEngine
from cppo_lab.rollouts.vllm.offline import OfflineSettings

_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True}
_BUILDERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "tied": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": True}),
    "untied": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": False}),
    "experts": (Qwen3MoeForCausalLM, Qwen3MoeConfig, {"tie_word_embeddings": True, **_EXPERTS}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
}
KINDS = tuple(_BUILDERS)


def random_network(kind: str, seed: int = 0, **shape: Any) -> PreTrainedModel:
    """A network with random weights, large enough that its distributions are far from uniform."""
    tokenizer = byte_tokenizer()
    network, config, special = _BUILDERS[kind]
    torch.manual_seed(seed)
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "initializer_range": 0.1,
    }
    if kind == "qwen2":
        # Its heads share the width among them.
        common |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    return network(config(**(common | special | shape))).eval()


class OneEngine:
    """At most one vLLM at a time, as a process can hold no more; the last one is kept while it is what is asked for."""

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self._new_folder = new_folder
        self._engine: VllmEngine | None = None
        self._kept: tuple[Any, Policy] | None = None

    def of_kind(self, kind: str, dtype: str = "float32") -> tuple[VllmEngine, Policy]:
        """An engine for a random network of this kind, and its policy."""
        if self._engine is None or self._kept is None or self._kept[0] != (kind, dtype):
            network = random_network(kind)
            engine = self.start(Policy(network, byte_tokenizer()), dtype)
            self._kept = (kind, dtype), Policy(network, byte_tokenizer())
            return engine, self._kept[1]
        self._engine.load_weights(self._kept[1].network, 0)
        return self._engine, self._kept[1]

    def start(self, policy: Policy, dtype: Any = "float32", **changed: Any) -> VllmEngine:
        """A new engine that reads the weights of `policy`."""
        self.close()
        folder = self._new_folder()
        policy.network.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        self._engine = vllm_engine(policy, folder, dtype, **changed)
        return self._engine

    def close(self) -> None:
        """End what is running."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._kept = None


def vllm_engine(policy: Policy, folder: Path, dtype: Any = "float32", **changed: Any) -> VllmEngine:
    """vLLM with the weights of `policy`, which `folder` holds."""
    settings: dict[str, Any] = {
        "model": str(folder),
        "context": context_length(policy.network.config, policy.tokenizer),
        "dtype": dtype,
        "device": "cpu",
        "batch_size": 64,
        "kv_cache_gib": 1 / 32,
        "gpu_memory_utilization": 0.5,
        "enforce_eager": True,
    }
    return VllmEngine(policy, OfflineSettings(**(settings | changed)))


def moved(network: PreTrainedModel, share: float = 0.02, seed: int = 1) -> PreTrainedModel:
    """A copy whose matrices differ by noise of `share` of their own spread, as after some updates."""
    changed = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in changed.parameters():
            if parameter.dim() > 1:
                parameter.add_(share * parameter.std() * torch.randn(parameter.shape, generator=generator))
    return changed

"""The cache of keys and values that transformers' models grow in: theirs, without its copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from cppo_lab.rollouts.cached_decoder import TransformersDecoder

VOCABULARY, ROWS, LENGTH, STEPS = 40, 9, 12, 150
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
CONFIGURATIONS = {
    "llama": LlamaConfig(**SIZES),
    "qwen3": Qwen3Config(**SIZES),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512),
    "sliding window": MistralConfig(**SIZES, sliding_window=16),
    "some layers slide": Gemma3TextConfig(
        **SIZES, sliding_window=16, layer_types=["sliding_attention", "full_attention"]
    ),
}


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(LENGTH) >= torch.arange(ROWS).unsqueeze(-1)
    return torch.randint(VOCABULARY, (ROWS, LENGTH), generator=generator), mask


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_are_bit_for_bit_those_of_transformers_own_cache(name: str) -> None:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(CONFIGURATIONS[name]).eval()
    tokens, mask = prompts()
    with torch.inference_mode():
        ours, theirs = (TransformersDecoder(network, tokens, mask) for _ in range(2))
        theirs._cache = DynamicCache(config=network.config)
        theirs._grown = 0
        theirs.logits = theirs._logits(tokens, (mask.cumsum(-1) - 1).clamp(min=0))
        for step in range(STEPS):
            assert torch.equal(ours.logits, theirs.logits), step
            if step % 40 == 39:
                rows = torch.arange(len(theirs.logits)) != step % len(theirs.logits)
                for decoder in (ours, theirs):
                    decoder.keep(rows.nonzero().squeeze(-1))
            chosen = theirs.logits.argmax(-1)
            for decoder in (ours, theirs):
                decoder.append(chosen)


def test_a_token_more_copies_no_others() -> None:
    network = AutoModelForCausalLM.from_config(CONFIGURATIONS["llama"]).eval()
    tokens, mask = prompts()
    with torch.inference_mode():
        decoder = TransformersDecoder(network, tokens, mask)
        places = set()
        for _ in range(STEPS):
            decoder.append(decoder.logits.argmax(-1))
            places.add(decoder._cache.layers[0].keys.data_ptr())
    assert len(places) <= 4

"""Models and tokenizers of text, made from nothing: for tests in which prompts are sentences."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerFast

from cppo_lab.eval.local_engine import LocalTextEngine
from cppo_lab.models.config import ScratchModel
from cppo_lab.models.loading import ModelSource, Policy
from cppo_lab.models.scratch import scratch_policy
from cppo_lab.models.tokenizers import trained_tokenizer
from cppo_lab.rollouts.native_config import NativeConfig
from cppo_lab.rollouts.serving import serve_policy

BYTES = 300
"""The smallest vocabulary: nearly every token is a byte."""
SENTENCES = (
    "Question: Ann has 3 apples, and Bob gives her 4 more. How many has she?\nAnswer: She has 3 + 4 = 7.\n#### 7",
    "Q: A shop sells 12 pens for $1.50 each. What does it earn?\nA: It earns 12 * 1.5 = 18. The answer is 18.",
)


def byte_tokenizer(*specials: str) -> PreTrainedTokenizerFast:
    """A tokenizer of (nearly) single bytes, with `specials` as special tokens besides its own."""
    tokenizer = trained_tokenizer(SENTENCES, BYTES)
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    return tokenizer


def random_policy(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0, gain: float = 1.0, **shape: int
) -> Policy:
    """A model of random weights for `tokenizer`; `shape` changes the default of one small layer.

    Greedy responses repeat one token, unless a `gain` on the matrices makes them chaotic.
    """
    model = ScratchModel(
        **{
            "kind": "scratch",
            "name": "text",
            "width": 64,
            "layers": 1,
            "heads": 2,
            "kv_heads": 1,
            "head_dim": 32,
            "feed_forward": 128,
            "experts": 0,
            "experts_per_token": 0,
            "expert_feed_forward": 0,
            "context": 1024,
            "vocabulary": max(BYTES, len(tokenizer)),
        }
        | shape
    )
    network = scratch_policy(model, tokenizer, seed)
    with torch.no_grad():
        for layer in network.model.layers:
            for parameter in layer.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(gain)
    return Policy(network, tokenizer)


def native_text_engine(policy: Policy, batch_size: int = 64) -> LocalTextEngine:
    """The native engine as evaluation uses it."""
    config = NativeConfig.for_evaluation(batch_size)
    return LocalTextEngine("native", policy.dtype, serve_policy(config, policy, ModelSource("in memory")))

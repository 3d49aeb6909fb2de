"""The sizes of a model, known before any of its weights are loaded: for estimates of cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a Qwen3 model. With `experts`, every layer is a mixture of experts."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    is_tied: bool
    experts: int = 0
    experts_per_token: int = 0
    expert_feed_forward: int = 0

    def _counted(self, experts: int) -> int:
        attention = self.width * self.head_dim * 2 * (self.heads + self.kv_heads) + 2 * self.head_dim
        if self.experts:
            mixer = experts * 3 * self.width * self.expert_feed_forward + self.experts * self.width
        else:
            mixer = 3 * self.width * self.feed_forward
        embeddings = (1 if self.is_tied else 2) * self.vocabulary * self.width
        return embeddings + self.layers * (attention + mixer + 2 * self.width) + self.width

    @property
    def parameters(self) -> int:
        """All parameters; embeddings tied to the output head count once."""
        return self._counted(self.experts)

    @property
    def active_parameters(self) -> int:
        """Parameters used for one token, embeddings included."""
        return self._counted(self.experts_per_token)

    @property
    def multiplied_parameters(self) -> int:
        """Active parameters used in matrix products: untied input embeddings are only looked up."""
        return self.active_parameters - (0 if self.is_tied else self.vocabulary * self.width)

    def attention_operations(self, length: int) -> int:
        """Attention operations of one token's forward pass, the mean over a causal sequence of `length` tokens.

        Scores and weighted values each take two operations per head unit and earlier token.
        """
        return 4 * self.layers * self.heads * self.head_dim * (length // 2)

    def kv_bytes_per_token(self, bytes_per_number: int) -> int:
        """Bytes of one token's keys and values."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_number


# From the config.json of each hub model at the revision that conf/model pins; counts as in the Qwen3 report
# (arXiv:2505.09388), Tables 1 and 2.
SHAPES: Mapping[str, ModelShape] = {
    "Qwen/Qwen3-1.7B": ModelShape(28, 2048, 16, 8, 128, 6144, 151_936, is_tied=True),
    "Qwen/Qwen3-1.7B-Base": ModelShape(28, 2048, 16, 8, 128, 6144, 151_936, is_tied=True),
    "Qwen/Qwen3-8B-Base": ModelShape(36, 4096, 32, 8, 128, 12_288, 151_936, is_tied=False),
    "Qwen/Qwen3-30B-A3B-Base": ModelShape(
        48,
        2048,
        32,
        4,
        128,
        6144,
        151_936,
        is_tied=False,
        experts=128,
        experts_per_token=8,
        expert_feed_forward=768,
    ),
}


def known_shape(path: str) -> ModelShape | None:
    """The shape of the model in a local folder, or of a hub model in `SHAPES`; None if unknown."""
    config = Path(path) / "config.json"
    if config.is_file():
        return _shape_in(json.loads(config.read_text(encoding="utf-8")))
    return SHAPES.get(path)


def _shape_in(content: Mapping[str, object]) -> ModelShape | None:
    def size(key: str, default: int | None = None) -> int:
        value = content.get(key, default)
        if not isinstance(value, int):
            raise KeyError(key)
        return value

    try:
        width, heads = size("hidden_size"), size("num_attention_heads")
        return ModelShape(
            layers=size("num_hidden_layers"),
            width=width,
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", width // heads),
            feed_forward=size("intermediate_size"),
            vocabulary=size("vocab_size"),
            is_tied=bool(content.get("tie_word_embeddings", False)),
            experts=size("num_experts", 0),
            experts_per_token=size("num_experts_per_tok", 0),
            expert_feed_forward=size("moe_intermediate_size", 0),
        )
    except KeyError:
        return None

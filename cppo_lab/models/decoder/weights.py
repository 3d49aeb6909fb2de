"""The weights and sizes of a dense Qwen3 or Llama model of transformers, as the decoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """What a configuration says besides the shapes of the weights. Qwen3 norms its heads, and Llama does not."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope_theta: float
    padding: int | None
    """The token whose embedding gets no gradient as an input, as in transformers."""
    norms_heads: bool

    @property
    def repeats(self) -> int:
        """Query heads to a key-value head."""
        return self.heads // self.kv_heads

    @property
    def scale(self) -> float:
        """What queries are multiplied by."""
        return self.head_dim**-0.5


@dataclass(frozen=True)
class LayerWeights:
    """A decoder layer's weights: one matrix for the three projections of attention, and one for gate and up.

    `head_norm` [heads + kv_heads, head_dim] weights the norm of each query and key head, where heads are normed.
    """

    before_attention: Tensor
    query_key_value: Tensor
    head_norm: Tensor | None
    output: Tensor
    before_feed_forward: Tensor
    gate_up: Tensor
    down: Tensor


def sizes_of(network: nn.Module) -> Sizes:
    """The sizes of a `Qwen3ForCausalLM` or a `LlamaForCausalLM`."""
    config: Any = network.config
    model: Any = network.model
    return Sizes(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        eps=config.rms_norm_eps,
        rope_theta=config.rope_parameters["rope_theta"],
        padding=config.pad_token_id,
        norms_heads=hasattr(model.layers[0].self_attn, "q_norm"),
    )


def parameters_of(network: nn.Module) -> list[Tensor]:
    """The decoder's parameters: the embedding, nine or (where heads are normed) eleven of each layer, the last norm."""
    model: Any = network.model
    found = [model.embed_tokens.weight]
    for layer in model.layers:
        attention, mixer = layer.self_attn, layer.mlp
        found += [
            layer.input_layernorm.weight,
            attention.q_proj.weight,
            attention.k_proj.weight,
            attention.v_proj.weight,
            attention.o_proj.weight,
            layer.post_attention_layernorm.weight,
            mixer.gate_proj.weight,
            mixer.up_proj.weight,
            mixer.down_proj.weight,
        ]
        if hasattr(attention, "q_norm"):
            found += [attention.q_norm.weight, attention.k_norm.weight]
    return [*found, model.norm.weight]


def layers_in(parameters: Sequence[Tensor], sizes: Sizes) -> list[LayerWeights]:
    """The layers' weights in `parameters`, as `parameters_of` lists them, joined."""
    layers = []
    count = 11 if sizes.norms_heads else 9
    for start in range(1, len(parameters) - 1, count):
        first, query, key, value, output, second, gate, up, down, *norms = parameters[start : start + count]
        head_norm = None
        if sizes.norms_heads:
            query_norm, key_norm = norms
            head_norm = torch.cat([query_norm.expand(sizes.heads, -1), key_norm.expand(sizes.kv_heads, -1)])
        layers.append(
            LayerWeights(
                before_attention=first,
                query_key_value=torch.cat([query, key, value]),
                head_norm=head_norm,
                output=output,
                before_feed_forward=second,
                gate_up=torch.cat([gate, up]),
                down=down,
            )
        )
    return layers


def gradients_in(layer: LayerWeights, sizes: Sizes) -> list[Tensor]:
    """The gradients of a layer's parameters, from those of its joined weights."""
    widths = [sizes.heads * sizes.head_dim, *[sizes.kv_heads * sizes.head_dim] * 2]
    norms = ()
    if layer.head_norm is not None:
        norms = tuple(norm.sum(0) for norm in layer.head_norm.split([sizes.heads, sizes.kv_heads]))
    return [
        layer.before_attention,
        *layer.query_key_value.split(widths),
        layer.output,
        layer.before_feed_forward,
        *layer.gate_up.chunk(2),
        layer.down,
        *norms,
    ]

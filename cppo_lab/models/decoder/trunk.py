"""The hidden states of a packed batch, and their gradients with respect to every weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from cppo_lab.models.decoder.attending import Attended, Attention
from cppo_lab.models.decoder.layers import (
    gated,
    gated_backward,
    product,
    product_backward,
    rms_norm,
    rms_norm_backward,
    rotated,
    rotated_backward,
    rotation,
)
from cppo_lab.models.decoder.packing import Packed, packed
from cppo_lab.models.decoder.weights import (
    LayerWeights,
    Sizes,
    gradients_in,
    layers_in,
    parameters_of,
    sizes_of,
)


@dataclass(frozen=True)
class _Normed:
    """What a norm keeps: its unweighted result, and what it multiplied by."""

    normal: Tensor
    scale: Tensor

    def backward(self, grad: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return rms_norm_backward(grad, self.normal, self.scale, weight)


@dataclass(frozen=True)
class Kept:
    """What a layer keeps for its backward pass: each norm, and what each matrix multiplied."""

    first: _Normed
    attention_input: Tensor
    heads: _Normed | None
    attended: Sequence[Attended]
    mixed: Tensor
    second: _Normed
    feed_forward_input: Tensor
    gate_up: Tensor
    activated: Tensor
    fed: Tensor


class Trunk:
    """The decoder of a Qwen3 or Llama model over one packed batch of N tokens, with states of width d."""

    def __init__(self, batch: Packed, sizes: Sizes, dtype: torch.dtype) -> None:
        self.batch, self.sizes = batch, sizes
        self.attention = Attention(batch, sizes, dtype)
        self._cos, self._sin = rotation(batch.positions, sizes.head_dim, sizes.rope_theta, dtype)

    def forward(
        self, parameters: Sequence[Tensor], on_layer: Callable[[Kept], None] = lambda _kept: None
    ) -> tuple[Tensor, _Normed]:
        """The states [N, d] after the last norm, and what that norm keeps; `on_layer` gets what each layer keeps."""
        x = parameters[0].index_select(0, self.batch.tokens)
        for weights in layers_in(parameters, self.sizes):
            x, kept = self._layer(x, weights)
            on_layer(kept)
        states, *last = rms_norm(x, parameters[-1], self.sizes.eps)
        return states, _Normed(*last)

    def _layer(self, x: Tensor, weights: LayerWeights) -> tuple[Tensor, Kept]:
        sizes = self.sizes
        attention_input, *first = rms_norm(x, weights.before_attention, sizes.eps)
        projected = product(attention_input, weights.query_key_value).view(len(x), -1, sizes.head_dim)
        unnormed, value = projected.split([sizes.heads + sizes.kv_heads, sizes.kv_heads], dim=1)
        normed, heads = unnormed, None
        if weights.head_norm is not None:
            normed, *norm = rms_norm(unnormed, weights.head_norm, sizes.eps)
            heads = _Normed(*norm)
        query, key = rotated(normed, self._cos, self._sin).split([sizes.heads, sizes.kv_heads], dim=1)
        mixed, attended = self.attention.forward(query * sizes.scale, key, value)
        x = x + product(mixed, weights.output)
        feed_forward_input, *second = rms_norm(x, weights.before_feed_forward, sizes.eps)
        gate_up = product(feed_forward_input, weights.gate_up)
        fed, activated = gated(gate_up)
        kept = Kept(
            _Normed(*first),
            attention_input,
            heads,
            attended,
            mixed,
            _Normed(*second),
            feed_forward_input,
            gate_up,
            activated,
            fed,
        )
        return x + product(fed, weights.down), kept

    def backward(
        self, grad: Tensor, parameters: Sequence[Tensor], layers: Sequence[Kept], last: _Normed
    ) -> list[Tensor]:
        """Gradients of all `parameters` from the gradient [N, d] of the states."""
        grad, of_norm = last.backward(grad, parameters[-1])
        found = [of_norm]
        all_weights = layers_in(parameters, self.sizes)
        for weights, kept in zip(reversed(all_weights), reversed(layers), strict=True):
            grad, of_weights = self._layer_backward(grad, weights, kept)
            found = [*gradients_in(of_weights, self.sizes), *found]
        of_embedding = torch.zeros_like(parameters[0]).index_add_(0, self.batch.tokens, grad)
        if self.sizes.padding is not None:
            of_embedding[self.sizes.padding] = 0
        return [of_embedding, *found]

    def _layer_backward(self, grad: Tensor, weights: LayerWeights, kept: Kept) -> tuple[Tensor, LayerWeights]:
        """Gradients of a layer's input [N, d] and of its weights."""
        sizes = self.sizes
        of_fed, down = product_backward(grad, kept.fed, weights.down)
        of_gate_up = gated_backward(of_fed, kept.gate_up, kept.activated)
        of_input, gate_up = product_backward(of_gate_up, kept.feed_forward_input, weights.gate_up)
        through, before_feed_forward = kept.second.backward(of_input, weights.before_feed_forward)
        grad = grad + through
        of_mixed, output = product_backward(grad, kept.mixed, weights.output)
        query, key, value = self.attention.backward(
            of_mixed.view(len(grad), -1, sizes.head_dim), kept.attended
        )
        of_rotated = torch.cat([query.mul_(sizes.scale), key], dim=1)
        of_unnormed, head_norm = rotated_backward(of_rotated, self._cos, self._sin), None
        if kept.heads is not None and weights.head_norm is not None:
            of_unnormed, head_norm = kept.heads.backward(of_unnormed, weights.head_norm)
        of_projected = torch.cat([of_unnormed, value], dim=1).flatten(1)
        of_input, query_key_value = product_backward(
            of_projected, kept.attention_input, weights.query_key_value
        )
        through, before_attention = kept.first.backward(of_input, weights.before_attention)
        return grad + through, LayerWeights(
            before_attention, query_key_value, head_norm, output, before_feed_forward, gate_up, down
        )


class _States(torch.autograd.Function):
    """`Trunk.forward` with `Trunk.backward` as its gradient."""

    @staticmethod
    def forward(ctx: Any, trunk: Trunk, *parameters: Tensor) -> Tensor:
        layers: list[Kept] = []
        states, last = trunk.forward(parameters, layers.append)
        ctx.trunk, ctx.kept = trunk, (layers, last)
        ctx.save_for_backward(*parameters)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.trunk.backward(grad, ctx.saved_tensors, *ctx.kept)


def response_states(network: nn.Module, tokens: Tensor, attention_mask: Tensor, prompt_width: int) -> Tensor:
    """The states [B, T, d] that predict the response tokens of `tokens` [B, P + T], left-padded prompts of width P.

    With gradients where they are asked for; `attention_mask` [B, P + T] is 1 at real tokens. At padding, states are
    finite and meaningless.
    """
    batch = packed(tokens, attention_mask, prompt_width)
    parameters = parameters_of(network)
    trunk = Trunk(batch, sizes_of(network), parameters[0].dtype)
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
        states = cast(Tensor, _States.apply(trunk, *parameters))
    else:
        states = trunk.forward(parameters)[0]
    return states.index_select(0, batch.source.flatten()).view(*batch.source.shape, -1)

"""Sampling with a Qwen3 or Llama decoder: a static cache of keys and values, and every prompt computed once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cppo_lab.models.decoder.layers import attention, gated, product, rms_norm, rotated, rotation
from cppo_lab.models.decoder.packing import packed, rounded_up
from cppo_lab.models.decoder.trunk import Kept, Trunk
from cppo_lab.models.decoder.weights import LayerWeights, layers_in, parameters_of, sizes_of


class IncrementalDecoder:
    """Next-token logits of B sequences that grow by a token at a time, by at most `room`.

    `prompts` [B, P] are left-padded, and real where `mask` [B, P] is set.
    """

    def __init__(self, network: nn.Module, prompts: Tensor, mask: Tensor, room: int) -> None:
        self._sizes, self._parameters = sizes_of(network), parameters_of(network)
        self._head: Tensor = network.get_output_embeddings().weight  # type: ignore[operator]
        self._layers = layers_in(self._parameters, self._sizes)
        self._length, self._count = prompts.shape[1], len(prompts)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self.logits = self._prefill(prompts, mask, room)
        """[B, V], of the next token."""
        added = torch.zeros(mask.shape, dtype=self._head.dtype, device=mask.device)
        added = torch.nn.functional.pad(added.masked_fill_(~mask, -torch.inf), (0, room))
        self._mask = added.repeat_interleave(self._sizes.kv_heads, dim=0).unsqueeze(1)
        self._positions = mask.sum(-1)
        self.keep(torch.arange(len(prompts), device=mask.device))

    def _prefill(self, prompts: Tensor, mask: Tensor, room: int) -> Tensor:
        batch = packed(prompts, mask, self._length)
        trunk = Trunk(batch, self._sizes, self._parameters[0].dtype)

        def cache(kept: Kept) -> None:
            of_prompts = kept.attended[0]
            self._keys.append(self._grown(trunk.attention.repeated(of_prompts.key), room))
            self._values.append(self._grown(trunk.attention.repeated(of_prompts.value), room))

        states, _ = trunk.forward(self._parameters, cache)
        return product(states[batch.source[:, 0]], self._head)

    def _grown(self, found: Tensor, room: int) -> Tensor:
        rows, width, size = found.shape
        cache = found.new_empty(rows, width + room, size)
        cache[:, :width] = found
        return cache

    def append(self, tokens: Tensor) -> None:
        """Append `tokens` [B], and compute the logits after them."""
        sizes = self._sizes
        rotations = rotation(self._positions, sizes.head_dim, sizes.rope_theta, self._head.dtype)
        unread = (0, len(self._positions) - self._count)
        x = self._parameters[0].index_select(0, torch.nn.functional.pad(tokens, unread))
        for weights, keys, values in zip(self._layers, self._keys, self._values, strict=True):
            x = x + product(self._attended(x, weights, keys, values, rotations), weights.output)
            feed_forward_input, *_ = rms_norm(x, weights.before_feed_forward, sizes.eps)
            fed, _ = gated(product(feed_forward_input, weights.gate_up))
            x = x + product(fed, weights.down)
        states, *_ = rms_norm(x, self._parameters[-1], sizes.eps)
        self.logits = product(states, self._head)[: self._count]
        self._length, self._positions = self._length + 1, self._positions + 1

    def _attended(
        self,
        x: Tensor,
        weights: LayerWeights,
        keys: Tensor,
        values: Tensor,
        rotations: tuple[Tensor, Tensor],
    ) -> Tensor:
        """The heads' outputs [B, heads * d] of a layer; the tokens' own keys and values go into the cache."""
        sizes, end = self._sizes, self._length + 1
        attention_input, *_ = rms_norm(x, weights.before_attention, sizes.eps)
        projected = product(attention_input, weights.query_key_value).view(len(x), -1, sizes.head_dim)
        heads, value = projected.split([sizes.heads + sizes.kv_heads, sizes.kv_heads], dim=1)
        if weights.head_norm is not None:
            heads, *_ = rms_norm(heads, weights.head_norm, sizes.eps)
        query, key = rotated(heads, *rotations).split([sizes.heads, sizes.kv_heads], dim=1)
        keys[:, self._length] = key.reshape(len(keys), -1)
        values[:, self._length] = value.reshape(len(values), -1)
        scaled = (query * sizes.scale).view(len(keys), -1, sizes.head_dim)
        mask = self._mask[..., :end].expand(-1, sizes.repeats, -1)
        mixed, _ = attention(scaled, keys[:, :end], values[:, :end], mask)
        return mixed.view(len(x), -1)

    def keep(self, rows: Tensor) -> None:
        """Go on with the sequences `rows` [n] alone."""
        self.logits, self._count = self.logits[rows], len(rows)
        # The last one is computed again and again, up to a round number.
        rows = torch.nn.functional.pad(rows, (0, rounded_up(len(rows)) - len(rows)), value=int(rows[-1]))
        self._keys = [self._kept(keys, rows) for keys in self._keys]
        self._values = [self._kept(values, rows) for values in self._values]
        self._mask, self._positions = self._kept(self._mask, rows), self._positions[rows]

    def _kept(self, table: Tensor, rows: Tensor) -> Tensor:
        """The key-value heads of the sequences `rows` in a table [B * kv_heads, ...]."""
        # A sequence's heads lie side by side: one copy each.
        together = table.view(len(table) // self._sizes.kv_heads, -1)
        return together.index_select(0, rows).view(-1, *table.shape[1:])

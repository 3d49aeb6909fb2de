"""Next-token logits of sequences that grow by a token at a time, with a cache of their keys and values."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cppo_lab.models.decoder.incremental import IncrementalDecoder
from cppo_lab.models.implementation import is_by_lab


class CachedDecoder(Protocol):
    """B sequences, and the logits of their next tokens."""

    logits: Tensor
    """[B, V]."""

    def append(self, tokens: Tensor) -> None:
        """Append `tokens` [B], and compute the logits after them."""

    def keep(self, rows: Tensor) -> None:
        """Go on with the sequences `rows` [n] alone, before the next token is appended."""


class GrowingLayer(DynamicLayer):
    """A layer's keys and values [B, heads, T, d] as transformers' DynamicLayer keeps them, with room to grow.

    That one copies all of them for every token, which takes most of the time once responses are long.
    """

    keys: Any
    values: Any
    _least_room = 64

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._wholes: dict[str, Tensor] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens, and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._appended("keys", self.keys, key_states)
        self.values = self._appended("values", self.values, value_states)
        return self.keys, self.values

    def _appended(self, name: str, known: Tensor, new: Tensor) -> Tensor:
        if not known.numel():
            return new
        batch, heads, length, width = known.shape
        end, whole = length + new.shape[-2], self._wholes.get(name)
        # What was selected from it since is another tensor.
        if whole is None or known.data_ptr() != whole.data_ptr() or whole.shape[2] < end:
            whole = known.new_empty(batch, heads, end + max(self._least_room, end // 4), width)
            whole[:, :, :length] = known
            self._wholes[name] = whole
        whole[:, :, length:end] = new
        return whole[:, :, :end]


class TransformersDecoder:
    """Any causal language model of transformers, from its own prompts `tokens` [B, P], real where `mask` is set."""

    def __init__(self, network: nn.Module, tokens: Tensor, mask: Tensor) -> None:
        self._network: Any = network
        self._cache = DynamicCache(config=self._network.config)
        # Layers with windows, and those of other kinds of attention, keep their own ways.
        self._cache.layers = [
            GrowingLayer() if type(layer) is DynamicLayer else layer for layer in self._cache.layers
        ]
        self._mask, self._lengths = mask, mask.sum(-1)
        self._grown = 0
        self.logits = self._logits(tokens, (mask.cumsum(-1) - 1).clamp(min=0))

    def _logits(self, tokens: Tensor, positions: Tensor) -> Tensor:
        output = self._network(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def append(self, tokens: Tensor) -> None:
        """See `CachedDecoder.append`."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=-1)
        positions = (self._lengths + self._grown).unsqueeze(-1)
        self._grown += 1
        self.logits = self._logits(tokens.unsqueeze(-1), positions)

    def keep(self, rows: Tensor) -> None:
        """See `CachedDecoder.keep`."""
        self._cache.batch_select_indices(rows)
        self._mask, self._lengths, self.logits = self._mask[rows], self._lengths[rows], self.logits[rows]


def cached_decoder(network: nn.Module, prompts: Tensor, mask: Tensor, room: int) -> CachedDecoder:
    """A decoder of `network` after the left-padded `prompts` [B, P], real where `mask` is set, for `room` tokens."""
    if is_by_lab(network):
        return IncrementalDecoder(network, prompts, mask, room)
    return TransformersDecoder(network, prompts, mask)

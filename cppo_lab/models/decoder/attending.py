"""Attention over a packed batch: padded by sequence for the matrix products, and packed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cppo_lab.models.decoder.layers import attention, attention_backward
from cppo_lab.models.decoder.packing import Packed, Part
from cppo_lab.models.decoder.weights import Sizes


@dataclass(frozen=True)
class Attended:
    """What attention keeps of one part of the batch: `query` [rows * kv_heads, repeats * width, d], `key` and `value`
    [rows * kv_heads, keys, d], and the softmax.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    weights: Tensor

    def backward(self, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and value from that of the result, padded."""
        return attention_backward(grad, self.query, self.key, self.value, self.weights)


class _Table:
    """One part of the batch as a table of its sequences, padded: where each packed token's heads lie in it."""

    def __init__(self, part: Part, sizes: Sizes, dtype: torch.dtype) -> None:
        self.part, self._sizes = part, sizes
        self._query_places, self._key_places = self._places(sizes.repeats), self._places(1)
        mask = part.mask.to(dtype).unsqueeze(1).unsqueeze(1)
        mask = mask.expand(-1, sizes.kv_heads, sizes.repeats, -1, -1)
        self.mask = mask.reshape(part.rows * sizes.kv_heads, sizes.repeats * part.width, part.mask.shape[-1])

    def _places(self, repeats: int) -> Tensor:
        """The row of a table [rows, kv_heads, repeats, width], flattened, for each token and head, flattened."""
        width, kv_heads = self.part.width, self._sizes.kv_heads
        row, column = self.part.place // max(1, width), self.part.place % max(1, width)
        heads = torch.arange(kv_heads * repeats, device=row.device)
        return ((row.unsqueeze(-1) * kv_heads * repeats + heads) * width + column.unsqueeze(-1)).flatten()

    def _of(self, heads: int) -> Tensor:
        return self._key_places if heads == self._sizes.kv_heads else self._query_places

    def padded(self, x: Tensor) -> Tensor:
        """The part's rows of `x` [N, heads, d], [rows * kv_heads, heads / kv_heads * width, d], 0 at padding."""
        part, (heads, size) = self.part, x.shape[1:]
        table = x.new_zeros(part.rows * heads * part.width, size)
        table.index_copy_(0, self._of(heads), x[part.start : part.stop].reshape(-1, size))
        return table.view(part.rows * self._sizes.kv_heads, -1, size)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, to: Tensor) -> Attended:
        """Attention of padded tensors; the part's rows of `to` [N, heads, d] get its results."""
        mixed, weights = attention(query, key, value, self.mask)
        self.write(mixed, to)
        return Attended(query, key, value, weights)

    def write(self, table: Tensor, to: Tensor) -> None:
        """Undoes `padded`: writes the part's rows of `to` [N, heads, d]."""
        heads, size = to.shape[1:]
        rows = table.reshape(-1, size).index_select(0, self._of(heads))
        to[self.part.start : self.part.stop] = rows.view(-1, heads, size)


class Attention:
    """Attention of a packed batch whose responses share their prompts' keys and values."""

    def __init__(self, batch: Packed, sizes: Sizes, dtype: torch.dtype) -> None:
        self._batch, self._sizes = batch, sizes
        self._prompts = _Table(batch.prompts, sizes, dtype)
        self._responses = _Table(batch.responses, sizes, dtype)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, list[Attended]]:
        """The heads' outputs [N, heads * d] for scaled `query` [N, heads, d], `key` and `value` [N, kv_heads, d]."""
        found = torch.zeros_like(query)
        of_prompts = [self._prompts.padded(x) for x in (query, key, value)]
        kept = [self._prompts.attend(of_prompts[0], of_prompts[1], of_prompts[2], found)]
        if self._batch.responses.width:
            own = [self._responses.padded(x) for x in (query, key, value)]
            keys, values = (
                torch.cat([self.repeated(x), y], dim=1) for x, y in zip(of_prompts[1:], own[1:], strict=True)
            )
            kept.append(self._responses.attend(own[0], keys, values, found))
        return found.flatten(1), kept

    def backward(self, grad: Tensor, kept: Sequence[Attended]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of `forward`'s arguments from the gradient [N, heads, d] of its result."""
        of_key = grad.new_zeros(len(grad), self._sizes.kv_heads, self._sizes.head_dim)
        found = (torch.zeros_like(grad), of_key, torch.zeros_like(of_key))
        shared = kept[0].backward(self._prompts.padded(grad))
        if len(kept) > 1:
            query, key, value = kept[1].backward(self._responses.padded(grad))
            width = self._batch.prompts.width
            for own, to in zip((query, key[:, width:], value[:, width:]), found, strict=True):
                self._responses.write(own, to)
            shared = (
                shared[0],
                shared[1] + self._summed(key[:, :width]),
                shared[2] + self._summed(value[:, :width]),
            )
        for of_prompts, to in zip(shared, found, strict=True):
            self._prompts.write(of_prompts, to)
        return found

    def repeated(self, of_prompts: Tensor) -> Tensor:
        """`of_prompts` [G * kv_heads, P, d] for every response, [B * kv_heads, P, d]."""
        rows = of_prompts.view(self._batch.prompts.rows, -1).index_select(0, self._batch.group)
        return rows.view(-1, *of_prompts.shape[1:])

    def _summed(self, of_responses: Tensor) -> Tensor:
        """Undoes `repeated` for gradients: summed over the responses to each prompt."""
        rows = of_responses.reshape(self._batch.responses.rows, -1)
        found = rows.new_zeros(self._batch.prompts.rows, rows.shape[1])
        return found.index_add_(0, self._batch.group, rows).view(-1, *of_responses.shape[1:])

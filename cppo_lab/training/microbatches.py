"""Which responses of a rollout go through the model at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cppo_lab.rollouts.rollout import Rollout


def microbatches(
    rollout: Rollout, rows: Tensor, *, sequences: int | None, tokens: int | None, by_length: bool = True
) -> Sequence[Tensor]:
    """Split the responses `rows` [N] into parts of at most so many sequences, and tokens with their padding.

    In their order without a bound on the tokens. With one they are sorted by length, so that little is padding, unless
    not `by_length`. A response that is longer than the bound is a part of its own.
    """
    if tokens is None:
        return rows.split(sequences or max(1, len(rows)))
    lengths = rollout.lengths[rows]
    if by_length:
        order = lengths.argsort(stable=True)
        rows, lengths = rows[order], lengths[order]
    parts: list[list[int]] = []
    longest = 0
    for row, length in zip(rows.tolist(), lengths.tolist(), strict=True):
        longest = max(longest, length)
        held = len(parts[-1]) if parts else 0
        is_full = held == sequences or (held + 1) * (rollout.prompt_width + longest) > tokens
        if not parts or is_full:
            parts.append([])
            longest = length
        parts[-1].append(row)
    return [torch.tensor(part, device=rows.device) for part in parts]

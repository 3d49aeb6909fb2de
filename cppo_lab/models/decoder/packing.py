"""Where the tokens of a batch lie once padding is gone and every prompt is there once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Kernels are compiled for the number of rows: few different ones may occur.
_ROWS = 64


def rounded_up(rows: int) -> int:
    """The number of rows that `rows` are computed with."""
    return math.ceil(rows / _ROWS) * _ROWS


@dataclass(frozen=True)
class Part:
    """Some sequences of a packed batch, padded for attention: rows `start` to `stop` of the N packed tokens.

    `place` [stop - start] is the place of each of them in the padded [rows, width] table, flattened. `mask`
    [rows, width, keys] is 0 where a token may attend, else minus infinity.
    """

    start: int
    stop: int
    rows: int
    width: int
    place: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Packed:
    """N tokens of G different prompts and of their B responses; a response's last token, which predicts none, is out.

    `tokens` and `positions` [N]: first all prompts', then all responses', then rows up to a round number that nobody
    reads. A prompt attends to itself; a response also to the prompt `group` [B] names. `source` [B, T] is the packed
    token whose state predicts each response token; at padding it is any.
    """

    tokens: Tensor
    positions: Tensor
    prompts: Part
    responses: Part
    group: Tensor
    source: Tensor


def packed(tokens: Tensor, attention_mask: Tensor, prompt_width: int) -> Packed:
    """Pack `tokens` [B, P + T], left-padded prompts of width P = `prompt_width` and T response positions.

    Neighbouring rows with the same prompt share it. `attention_mask` [B, P + T] is 1 at real tokens.
    """
    real = attention_mask.bool()
    prompt, prompt_real = tokens[:, :prompt_width], real[:, :prompt_width]
    group, first = _groups(prompt.masked_fill(~prompt_real, -1))
    prompt, prompt_real = prompt[first], prompt_real[first]
    response, response_real = tokens[:, prompt_width:-1], real[:, prompt_width:-1]
    # A token is needed where a later one is real.
    later = real[:, prompt_width:].flip(-1).cumsum(-1).flip(-1)[:, 1:]
    needed = response_real & (later > 0)
    lengths = prompt_real.sum(-1)
    prompt_positions = (prompt_real.cumsum(-1) - 1).clamp(min=0)
    response_positions = lengths[group].unsqueeze(-1) + (response_real.cumsum(-1) - 1).clamp(min=0)
    count = int(prompt_real.sum())
    chosen = torch.cat([prompt[prompt_real], response[needed]])
    chosen_positions = torch.cat([prompt_positions[prompt_real], response_positions[needed]])
    unread = (0, rounded_up(len(chosen)) - len(chosen))
    prompts = Part(
        start=0,
        stop=count,
        rows=len(prompt),
        width=prompt_width,
        place=_places(prompt_real),
        mask=_prompt_mask(prompt_real),
    )
    responses = Part(
        start=count,
        stop=len(chosen),
        rows=len(response),
        width=response.shape[1],
        place=_places(needed),
        mask=_response_mask(prompt_real[group], needed),
    )
    return Packed(
        tokens=torch.nn.functional.pad(chosen, unread),
        positions=torch.nn.functional.pad(chosen_positions, unread),
        prompts=prompts,
        responses=responses,
        group=group,
        source=_source(prompt_real, needed, group, count),
    )


def _groups(prompts: Tensor) -> tuple[Tensor, Tensor]:
    """The group [B] of each row of `prompts` [B, P], and the first row of each group [G]."""
    changes = (prompts[1:] != prompts[:-1]).any(-1)
    starts = torch.cat([changes.new_ones(1), changes])
    return starts.cumsum(0) - 1, starts.nonzero().squeeze(-1)


def _places(real: Tensor) -> Tensor:
    return real.flatten().nonzero().squeeze(-1)


def _added(allowed: Tensor) -> Tensor:
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, -torch.inf)


def _prompt_mask(real: Tensor) -> Tensor:
    width = real.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
    # Padding attends to itself, so that its softmax stays finite.
    return _added((real.unsqueeze(1) & causal) | torch.eye(width, dtype=torch.bool, device=real.device))


def _response_mask(prompt_real: Tensor, needed: Tensor) -> Tensor:
    width = needed.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=needed.device).tril()
    own = (needed.unsqueeze(1) & causal) | torch.eye(width, dtype=torch.bool, device=needed.device)
    return _added(torch.cat([prompt_real.unsqueeze(1).expand(-1, width, -1), own], dim=-1))


def _source(prompt_real: Tensor, needed: Tensor, group: Tensor, count: int) -> Tensor:
    last = prompt_real.sum(-1).cumsum(0) - 1
    later = (count - 1 + needed.flatten().cumsum(0)).view(needed.shape)
    return torch.cat([last[group].unsqueeze(-1), later.clamp(min=0)], dim=-1)

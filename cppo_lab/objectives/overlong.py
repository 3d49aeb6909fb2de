"""DAPO's treatment of responses near the length limit (arXiv 2503.14476, section 3.4)."""

from __future__ import annotations

from typing import Annotated, Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.parameters import Param


class OverlongSpec(Coordinate, path="overlong"):
    """DAPO's treatment of long responses.

    shaping: a penalty that grows linearly over the last `buffer` tokens before the limit, down to -penalty.
    filtering: rows cut at the limit get no loss and leave the denominator.
    """

    kind: Literal["none", "shaping", "filtering"] = "none"
    buffer: Annotated[
        float, Param(above=0, about="Tokens when above 1, otherwise a share of the maximum response length.")
    ] = 0.2
    penalty: Annotated[float, Param(above=0, about="The largest penalty.")] = 1.0


def overlong_penalty(lengths: Tensor, max_length: int, spec: OverlongSpec) -> Tensor:
    """What to add to each reward [B]; `lengths` [B] counts response tokens, end of sequence included.

    0 up to max_length - buffer, then linear down to -penalty at max_length and no lower. Raises ValueError
    when the buffer is longer than the limit. All zeros unless `spec.kind` is shaping.
    """
    dtype = torch.promote_types(torch.float32, torch.get_default_dtype())
    if spec.kind != "shaping":
        return torch.zeros(lengths.shape, dtype=dtype, device=lengths.device)
    buffer = spec.buffer if spec.buffer > 1 else spec.buffer * max_length
    if buffer > max_length:
        raise ValueError(
            f"overlong.buffer = {spec.buffer:g}: must not exceed the maximum response length, {max_length}"
        )
    excess = (lengths.to(dtype) - (max_length - buffer)) / buffer
    return -spec.penalty * excess.clamp(0, 1)


def without_truncated(response_mask: Tensor, truncated: Tensor, spec: OverlongSpec) -> Tensor:
    """The response mask [B, T] for the loss: under filtering, rows cut at the limit (`truncated` [B]) are empty.

    They then count in no denominator.
    """
    if spec.kind != "filtering":
        return response_mask
    return response_mask & ~truncated.unsqueeze(-1)

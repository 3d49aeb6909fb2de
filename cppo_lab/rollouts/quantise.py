"""Weights rounded to lower precision, as a quantised rollout engine holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from cppo_lab.rollouts.engine_config import WeightFormat

_LEVELS = {"int8": 127, "int4": 7, "int3": 3}


def round_to_integers(weight: Tensor, levels: int) -> Tensor:
    """Round each row of `weight` [..., rows, columns] to the nearest of 2 `levels` + 1 symmetric steps."""
    scale = weight.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / levels
    return (weight / scale).round().clamp(-levels, levels) * scale


def rounded(weight: Tensor, format: WeightFormat) -> Tensor:
    """`weight` rounded to the format, in its own dtype. Vectors (norms) are not rounded to integers."""
    if format == "same":
        return weight
    if format == "bfloat16":
        return weight.bfloat16().to(weight.dtype)
    return round_to_integers(weight, _LEVELS[format]) if weight.dim() >= 2 else weight

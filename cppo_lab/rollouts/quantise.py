"""Lower-precision copies of a policy's weights, as a rollout engine would hold them."""

from __future__ import annotations

import torch
from torch import Tensor

from cppo_lab.rollouts.engine_config import WeightFormat

_LEVELS = {"int8": 127, "int4": 7}


def round_to_integers(weight: Tensor, levels: int) -> Tensor:
    """Symmetric round-to-nearest of each row of `weight` [..., rows, columns] onto `levels` steps a side."""
    scale = weight.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / levels
    return (weight / scale).round().clamp(-levels, levels) * scale


def rounded(weight: Tensor, format: WeightFormat) -> Tensor:
    """`weight` as the format would hold it, in its own dtype. Vectors (norms) are never quantised to integers."""
    if format == "same":
        return weight
    if format == "bfloat16":
        return weight.bfloat16().to(weight.dtype)
    return round_to_integers(weight, _LEVELS[format]) if weight.dim() >= 2 else weight

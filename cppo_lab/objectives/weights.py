"""Position weights w_t in (0, 1] (CPPO Eq. 9 and its alternatives), and whether Theorem 1 admits them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cppo_lab.objectives.coordinates import WeightSpec
from cppo_lab.objectives.prefixes import positions
from cppo_lab.objectives.spec import AlgoSpec


def position_weights(
    mask: Tensor, spec: WeightSpec, order: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """w_t [B, T], 0 outside the mask; positions count response tokens only, so padding and holes are inert.

    `order` [B, T] holds the sort keys of shuffled weights: the token with the k-th smallest key of its row
    gets the linear weight of position k. Raises ValueError when shuffled weights come without them.
    """
    position = positions(mask)
    if spec.kind == "shuffled":
        if order is None:
            raise ValueError(
                "trust_region.weights.kind shuffled needs sort keys drawn once per rollout, "
                "TokenBatch.weight_order"
            )
        keys = order.to(torch.float64).masked_fill(~mask, torch.inf)
        position = (keys.argsort(dim=-1, stable=True).argsort(dim=-1) + 1) * mask
    lengths = mask.sum(-1, keepdim=True)
    horizon = lengths if spec.horizon == "own" else torch.full_like(lengths, spec.horizon)
    steps = (horizon - 1).clamp(min=1).to(dtype)
    if spec.kind in ("reversed", "remaining_horizon"):
        fraction = (horizon.to(dtype) - position).div_(steps)
    else:
        fraction = position.to(dtype).sub_(1).div_(steps)
    weights = _SCHEDULES[spec.kind](fraction.clamp_(0, 1), spec)
    if spec.kind == "remaining_horizon":
        # A single token has no remaining horizon to be proportional to; every schedule gives it weight 1.
        weights = weights.masked_fill((horizon == 1) & (position == 1), 1.0)
    return weights.masked_fill_(~mask, 0.0)


def _uniform(fraction: Tensor, spec: WeightSpec) -> Tensor:
    return torch.ones_like(fraction)


def _linear(fraction: Tensor, spec: WeightSpec) -> Tensor:
    return (fraction * (spec.w_min - 1)).add_(1)


def _cosine(fraction: Tensor, spec: WeightSpec) -> Tensor:
    return spec.w_min + (1 - spec.w_min) * (1 + torch.cos(math.pi * fraction)) / 2


def _exponential(fraction: Tensor, spec: WeightSpec) -> Tensor:
    return torch.exp(math.log(spec.w_min) * fraction)


def _step(fraction: Tensor, spec: WeightSpec) -> Tensor:
    return torch.ones_like(fraction).masked_fill(fraction >= spec.step_at, spec.w_min)


def _floored(fraction: Tensor, spec: WeightSpec) -> Tensor:
    return fraction.clamp(min=spec.w_min)


_SCHEDULES: dict[str, Callable[[Tensor, WeightSpec], Tensor]] = {
    "uniform": _uniform,
    "linear": _linear,
    "shuffled": _linear,
    "reversed": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
    "step": _step,
    "remaining_horizon": _floored,
}
"""Functions of the fraction of the response already made; of what remains for reversed and
remaining_horizon."""

_PROBED_LENGTHS = (2, 3, 5, 17, 128, 1024)


def theorem_one_admits(spec: WeightSpec) -> bool:
    """Whether (T - t) / w_t never increases along a response, the condition of CPPO's Theorem 1.

    Evaluated for responses of several lengths up to 1024 tokens (up to the horizon, when that is fixed).
    Shuffled weights are in no order and are admitted only when they are all equal.
    """
    if spec.kind == "shuffled":
        return spec.w_min == 1
    horizon = _PROBED_LENGTHS[-1] if spec.horizon == "own" else spec.horizon
    lengths = {length for length in (*_PROBED_LENGTHS, horizon) if length <= horizon}
    return all(_admitted_at(spec, length) for length in lengths)


def admitted(algo: AlgoSpec) -> str | None:
    """`admitted` or `not admitted` by Theorem 1, for a method's position weights; None where it has none."""
    if algo.trust_region.kind != "prefix_budget":
        return None
    return "admitted" if theorem_one_admits(algo.trust_region.weights) else "not admitted"


def _admitted_at(spec: WeightSpec, length: int) -> bool:
    mask = torch.ones(1, length, dtype=torch.bool)
    weights = position_weights(mask, spec, dtype=torch.float64)[0]
    remaining = torch.arange(length - 1, -1, -1, dtype=torch.float64)
    ratio = remaining / weights
    return bool((ratio[1:] <= ratio[:-1] * (1 + 1e-12)).all())

"""Prefix budgets of CPPO (arXiv 2606.10968): the allowance that the tokens before t leave to token t."""

import torch
from torch import Tensor

from cppo_lab.objectives.coordinates import BudgetSpec
from cppo_lab.objectives.prefixes import positions, row_quantile, shift_right


def effective_budget(divergence: Tensor, mask: Tensor, spec: BudgetSpec, size: float) -> Tensor:
    """delta_b of each response [B]; `size` is the one in force at this training step.

    adaptive (Eq. 22): min(ceiling * size, max(size, multiple * quantile of the unweighted D of the
    response)). A row without response tokens has `size`.
    """
    floor = torch.full(divergence.shape[:1], size, dtype=divergence.dtype, device=divergence.device)
    if spec.kind != "adaptive":
        return floor
    typical = spec.multiple * row_quantile(divergence, mask, spec.quantile)
    return torch.minimum(spec.ceiling * floor, torch.maximum(floor, typical))


def allowance(prefix_weight: Tensor, mask: Tensor, budget: Tensor, delta: float, spec: BudgetSpec) -> Tensor:
    """What the prefix up to and including t may cost, in weighted divergence [B, T]; `prefix_weight` is W_t.

    slack threshold (Eq. 8): delta + delta_b W_{t-1}. slack none (Eq. 5): delta_b W_t, and no limit at the
    last token, which has no suffix. terminal: the last token's allowance, at every token. Infinite for kind
    none.
    """
    if spec.kind == "none":
        return torch.full_like(prefix_weight, torch.inf)
    # The largest finite number allows a prefix of weight zero nothing, where infinity times zero would be NaN.
    rate = budget.clamp(max=torch.finfo(budget.dtype).max).unsqueeze(-1)
    if spec.slack == "none":
        return (rate * prefix_weight).masked_fill(_is_last(mask), torch.inf)
    before = shift_right(prefix_weight)
    if spec.kind == "terminal":
        before = (before * _is_last(mask)).sum(-1, keepdim=True).expand_as(prefix_weight)
    return (rate * before).add_(delta)


def _is_last(mask: Tensor) -> Tensor:
    return mask & (positions(mask) == mask.sum(-1, keepdim=True))

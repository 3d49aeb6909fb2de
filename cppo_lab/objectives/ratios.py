"""Importance ratios: what the other tokens of a response add to a token's own log-ratio.

A rule reads the tokens' log-ratios [B, T], detached and 0 outside the mask, and the mask, and returns what to add
[B, T], 0 outside the mask.
"""

from __future__ import annotations

from typing import Annotated

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.prefixes import positions, row_mean, shift_right
from cppo_lab.objectives.rules import Rules

ratios = Rules("surrogate.ratio")


@ratios.register("token")
def token(own: Tensor, mask: Tensor) -> Tensor:
    """The token's own, rho_t."""
    return torch.zeros_like(own)


@ratios.register("sequence", paper="arXiv:2507.18071")
def sequence(own: Tensor, mask: Tensor) -> Tensor:
    """The geometric mean of the response (GSPO)."""
    return (row_mean(own, mask).unsqueeze(-1) - own).masked_fill(~mask, 0.0)


@ratios.register("sequence_product", paper="arXiv:2602.10693")
def sequence_product(own: Tensor, mask: Tensor) -> Tensor:
    """The product over the response, pi(y) / mu(y)."""
    return (own.sum(-1, keepdim=True) - own).masked_fill(~mask, 0.0)


@ratios.register("prefix_minimum", paper="arXiv:2601.22718")
def prefix_minimum(
    own: Tensor,
    mask: Tensor,
    *,
    inclusive: Annotated[
        bool,
        Param(
            refuse_unread=True,
            about="Let the minimum include token t (a community variant, not the paper's).",
        ),
    ] = False,
) -> Tensor:
    """rho_t times the smallest earlier ratio (MinPRO).

    The smallest log-ratio before the token; 0 for the first, and not capped at 0.
    """
    smallest = own.masked_fill(~mask, torch.inf).cummin(-1).values
    if not inclusive:
        smallest = shift_right(smallest, torch.inf)
    return smallest.masked_fill(smallest == torch.inf, 0.0).masked_fill(~mask, 0.0)


@ratios.register("prefix_product", paper="arXiv:2605.07331")
def prefix_product(own: Tensor, mask: Tensor) -> Tensor:
    """The product of the ratios up to t (CTPO)."""
    return shift_right(own.cumsum(-1)).masked_fill(~mask, 0.0)


@ratios.register("prefix_mean")
def prefix_mean(own: Tensor, mask: Tensor) -> Tensor:
    """The geometric mean of the ratios up to t (PNPO)."""
    return own.cumsum(-1) / positions(mask).clamp(min=1) - own

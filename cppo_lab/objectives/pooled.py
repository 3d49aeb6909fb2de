"""Statistics of a whole minibatch, which some rules read beside the rows they are applied to.

A rule that is registered with `statistic=FUNCTION` is given what the function makes of all response tokens of the
minibatch. They are computed once per update, without gradients, before the loss of the first micro-batch, so that
neither the loss nor the gradient depends on how the minibatch is split or ordered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cppo_lab.lazy_torch import Tensor, torch

Statistics = Mapping[str, Tensor]
"""Statistics by name, most of them scalars."""


@dataclass(frozen=True)
class PooledTokens:
    """The response tokens of a whole minibatch, in any order: all [N], detached."""

    log_ratio: Tensor
    """The logarithm of the surrogate's importance ratio, float64."""
    advantages: Tensor
    away: Tensor
    """bool: the update moves the token's probability away from the anchor."""
    distance: Tensor | None
    """D_t, float64; None when the method has no divergence."""
    prompt: Tensor | None
    """The prompt that the token's response answers, int64; None when the batch does not say."""
    logp: Tensor
    """log pi."""
    kept: Tensor
    """bool: the trust region keeps it; of methods with a selection, else True."""
    order: Tensor | None
    """Sort keys drawn once per update; None without them."""


def pooled(parts: Iterable[PooledTokens]) -> PooledTokens:
    """The tokens of all parts of a minibatch. Raises ValueError without any part."""
    found = list(parts)
    if not found:
        raise ValueError("a minibatch needs at least one batch")

    def joined(values: Sequence[Tensor | None]) -> Tensor | None:
        present = [value for value in values if value is not None]
        return torch.cat(present) if present else None

    return PooledTokens(
        log_ratio=torch.cat([part.log_ratio for part in found]),
        advantages=torch.cat([part.advantages for part in found]),
        away=torch.cat([part.away for part in found]),
        distance=joined([part.distance for part in found]),
        prompt=joined([part.prompt for part in found]),
        logp=torch.cat([part.logp for part in found]),
        kept=torch.cat([part.kept for part in found]),
        order=joined([part.order for part in found]),
    )


def quantile(values: Tensor, share: float) -> Tensor:
    """The quantile of `values` [N] with linear interpolation, a scalar; 0 without values."""
    if not len(values):
        return values.new_zeros(())
    ordered = values.sort().values
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def merged(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The statistics of several rules together. Raises ValueError for a name that two of them use."""
    together: dict[str, Any] = {}
    for each in found:
        if taken := together.keys() & each.keys():
            raise ValueError(f"statistic {min(taken)}: two selected rules have one of this name")
        together |= each
    return together

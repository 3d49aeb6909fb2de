"""PPO's clip beside a threshold on the divergence, and with a window that a minibatch's second moment sets."""

from __future__ import annotations

from typing import Annotated

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.decisions import ClipWindow, Decision
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.pooled import PooledTokens
from cppo_lab.objectives.trust_regions import ClipRange, Delta, RegionInputs, trust_regions


@trust_regions.register(
    "threshold_and_clip",
    paper="arXiv:2607.22186",
    needs=["divergence", "direction", "scale"],
    provides=["clip_window"],
)
def threshold_and_clip(
    at: RegionInputs, *, delta: Delta, clip_low: ClipRange, clip_high: ClipRange
) -> Decision:
    """Drop tokens that move away and have D_t > delta, and clip the ratio of the others to the window of PPO.

    A dropped token has no loss; a clipped one keeps its constant value. A scale is that of delta, and so is a
    direction.
    """
    assert at.direction is not None, "a region that needs direction is given it"
    threshold = at.threshold(delta)
    dropped = at.decide(
        at.divergence <= threshold, lambda: at.divergence / threshold, subject=at.direction.subject
    )
    window = ClipWindow(max(1 - clip_low, 0.0), 1 + clip_high, None, ~dropped.by_threshold)
    cut = dropped.by_threshold | (window.cuts(at.ratio, at.advantages) & at.mask)
    return Decision(
        gate=(at.mask & ~cut).to(at.ratio.dtype),
        by_threshold=cut,
        by_budget=dropped.by_budget,
        threshold=threshold,
        subject=dropped.subject,
        predicted_change=at.direction.change,
        window=window,
    )


_MARGIN, _MARGIN_IN_FLOAT64 = 1e-6, 1e-12
"""How far inside its own |log ratio| the bound of a clipped token lies: rounding must not let the token through."""


def _largest_log_ratio(pool: PooledTokens, *, moment_limit: float) -> dict[str, Tensor]:
    """The largest observed |log ratio|, among tokens that move away, from which on they are clipped.

    Capping every square at the right level would bring their mean to the limit; this is the largest one below it.
    """
    squares = pool.log_ratio[pool.away].square().sort().values
    bound = squares.new_full((), torch.inf)
    number = len(squares)
    if number and float(squares.mean()) > moment_limit:
        others = torch.arange(number - 1, -1, -1, device=squares.device)
        reached = squares * others + squares.cumsum(0) >= moment_limit * number
        first = int(reached.nonzero()[0])
        bound = squares[first - 1].sqrt() if first else squares.new_zeros(())
    return {"largest_log_ratio": bound}


@trust_regions.register(
    "moment_clip",
    paper="arXiv:2510.01161",
    provides=["clip_window"],
    statistic=_largest_log_ratio,
)
def moment_clip(
    at: RegionInputs,
    *,
    clip_low: ClipRange,
    clip_high: ClipRange,
    moment_limit: Annotated[
        float,
        Param(
            above=0, main_from=0.0, always_shown=True, about="On the mean of (log ratio)^2 of such tokens."
        ),
    ] = 0.04,
) -> Decision:
    """Clip as PPO does, to a window that is widened until it bounds the second moment over the minibatch (M2PO's code).

    The moment is that of tokens that move away; the window is never narrower than [1 - clip_low, 1 + clip_high].
    """
    margin = _MARGIN_IN_FLOAT64 if at.ratio.dtype == torch.float64 else _MARGIN
    bound = (at.statistics["largest_log_ratio"].to(at.ratio) - margin).clamp(min=0)
    low, high = (-bound).exp().clamp(max=max(1 - clip_low, 0.0)), bound.exp().clamp(min=1 + clip_high)
    window = ClipWindow(low, high, None)
    cut = window.cuts(at.ratio, at.advantages) & at.mask
    return Decision(
        gate=(at.mask & ~cut).to(at.ratio.dtype),
        by_threshold=cut,
        by_budget=torch.zeros_like(cut),
        window=window,
    )

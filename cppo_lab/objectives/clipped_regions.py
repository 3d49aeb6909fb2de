"""A threshold on the divergence and PPO's clip, both at once."""

from __future__ import annotations

from cppo_lab.objectives.trust_regions import (
    ClipRange,
    ClipWindow,
    Decision,
    Delta,
    RegionInputs,
    trust_regions,
)


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

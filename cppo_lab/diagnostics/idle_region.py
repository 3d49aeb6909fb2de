"""A trust region that never acts, said out loud: why it cannot from the settings, or why it did not from the metrics.

The bounds of all three are here. None of this needs PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

IDLE_SHARE = 1e-4
"""A region or a budget that masks at most this share of a run's tokens, averaged over its steps, has not acted."""
ANCHOR_TOLERANCE = 1e-3
"""Ratios this close to 1 at every update: the policy is its anchor, up to rounding."""


@dataclass(frozen=True)
class RegionSettings:
    """What decides whether a method's trust region can act.

    bounds: its finite and infinite thresholds, by key; window: the bounds of the ratio under a clip, None elsewhere.
    updates_per_rollout: at most so many optimizer updates use one rollout. sampler_is_policy: rollouts are sampled
    from the policy as the trainer computes it.
    """

    method: str
    kind: str
    anchor: str
    has_budget: bool
    bounds: Mapping[str, float]
    window: tuple[float, float] | None
    updates_per_rollout: int
    staleness: int
    sampler_is_policy: bool

    @property
    def is_off(self) -> bool:
        """Whether the method has no trust region, as plain policy gradient."""
        return self.kind == "none"

    @property
    def starts_at_anchor(self) -> bool:
        """Whether the policy is its own anchor at the first update from a rollout."""
        return self.staleness == 0 and (self.anchor == "old" or self.sampler_is_policy)

    @property
    def subject(self) -> str:
        """The region in words: `trust region ratio_clip of grpo`."""
        return f"trust region {self.kind} of {self.method}"


def cannot_act(region: RegionSettings) -> str | None:
    """Why the region cannot act, whatever is trained, and what to do; None where it can, or there is none."""
    why = _cause(region)
    return None if why is None else f"The {region.subject} cannot act: {why}"


def did_not_act(region: RegionSettings, metrics: Iterable[Mapping[str, object]]) -> str | None:
    """What in a finished run never acted, why, and what to do; None where all did, or there is no region.

    `metrics` are the rows of metrics.jsonl. Steps without an update count for nothing.
    """
    rows = list(metrics)
    masked = _mean(rows, "mask/share")
    if region.is_off or masked is None:
        return None
    if masked <= IDLE_SHARE:
        why = _cause(region) or _measured_cause(region, rows)
        return f"The {region.subject} never acted: it masked {_share(masked)} of the run's tokens. {_sentence(why)}"
    by_budget = _mean(rows, "mask/share_budget")
    if not region.has_budget or by_budget is None or by_budget > IDLE_SHARE:
        return None
    return (
        f"The prefix budget of {region.method} never bound: it alone masked {_share(by_budget)} of the run's tokens, "
        f"the threshold {_share(masked - by_budget)}. Lower algo.trust_region.budget.size, or leave the budget out."
    )


def _cause(region: RegionSettings) -> str | None:
    """Why the region cannot act whatever is trained, and what to do, as the end of a sentence."""
    if region.is_off:
        return None
    if region.bounds and not region.has_budget and all(map(math.isinf, region.bounds.values())):
        keys = ", ".join(f"algo.trust_region.{key}" for key in region.bounds)
        return f"{keys} {'is' if len(region.bounds) == 1 else 'are'} infinite. Set a finite threshold."
    if region.updates_per_rollout == 1 and region.starts_at_anchor:
        anchor = "π_old" if region.anchor == "old" else "the rollout policy"
        return (
            f"with one update per rollout, π is still {anchor} at the only update, so every ratio is 1 and every "
            "divergence 0. Raise trainer.epochs or lower trainer.prompts_per_minibatch, or leave the region out "
            "(algo.trust_region.kind=none or algo=pg)."
        )
    return None


def _measured_cause(region: RegionSettings, rows: list[Mapping[str, object]]) -> str:
    """What the ratios of a run whose region never acted show, and what to do, in whole sentences."""
    low = _extreme(rows, f"policy/ratio_min_vs_{region.anchor}", min)
    high = _extreme(rows, f"policy/ratio_max_vs_{region.anchor}", max)
    if low is None or high is None:
        return "Lower its thresholds, or leave the region out (algo=pg)."
    between = f"ratios stayed between {low:.4g} and {high:.4g}"
    if max(high - 1, 1 - low) <= ANCHOR_TOLERANCE:
        return (
            f"the policy never left its anchor: {between}. Raise trainer.lr or trainer.epochs, or lower "
            "trainer.prompts_per_minibatch."
        )
    if region.window is not None and region.window[0] <= low and high <= region.window[1]:
        return (
            f"{between}, inside the window from {region.window[0]:g} to {region.window[1]:g}. Narrow it "
            "(algo.trust_region.clip_low, clip_high), or move the policy further (trainer.lr, trainer.epochs)."
        )
    return f"{between}. Lower its thresholds, or move the policy further (trainer.lr, trainer.epochs)."


def _mean(rows: Iterable[Mapping[str, object]], name: str) -> float | None:
    values = _values(rows, name)
    return sum(values) / len(values) if values else None


def _extreme(
    rows: Iterable[Mapping[str, object]], name: str, of: Callable[[list[float]], float]
) -> float | None:
    values = _values(rows, name)
    return of(values) if values else None


def _values(rows: Iterable[Mapping[str, object]], name: str) -> list[float]:
    found = (row.get(name) for row in rows)
    return [float(each) for each in found if isinstance(each, int | float) and math.isfinite(each)]


def _share(value: float) -> str:
    return "none" if value <= 0 else f"{100 * value:.2g}%"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

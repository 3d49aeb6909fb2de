"""What a run should be warned of: a trust region that does not act, settings that mean other than they seem to, and
rewards from which nothing can be learnt.
"""

from __future__ import annotations

import math

from cppo_lab.config.schema import RunConfig
from cppo_lab.diagnostics.idle_region import RegionSettings, cannot_act, did_not_act
from cppo_lab.diagnostics.nothing_learnt import nothing_to_learn
from cppo_lab.objectives.divergences import divergences
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.tracking.run_folder import RunFolder


def region_settings(config: RunConfig) -> RegionSettings:
    """What decides whether the method's trust region can act."""
    algo, trainer = config.algo, config.trainer
    region = algo.trust_region
    return RegionSettings(
        method=algo.name,
        kind=region.kind,
        anchor=algo.anchor,
        has_budget=region.uses("budget") and not region.budget.is_off,
        bounds=_bounds(algo),
        window=_window(algo),
        updates_per_rollout=trainer.updates_per_step,
        staleness=trainer.staleness,
        sampler_is_policy=config.engine.kind == "native" and config.engine.is_exact,
    )


def _bounds(algo: AlgoSpec) -> dict[str, float]:
    """The thresholds that the selected region reads: its parameters that may be infinite, less those not set."""
    region = algo.trust_region
    names = [each.name for each in region.selected()["kind"].parameters if each.param.infinite]
    return {name: float(value) for name in names if (value := getattr(region, name)) is not None}


def _window(algo: AlgoSpec) -> tuple[float, float] | None:
    """The bounds of the token's own ratio, where the method clips it with the same ones at every position."""
    region = algo.trust_region
    is_fixed = region.kind == "ratio_clip" and region.clip_space == "ratio" and region.scale == "none"
    if not is_fixed or algo.surrogate.ratio != "token":
        return None
    return max(0.0, 1 - region.clip_low), 1 + region.clip_high


def warnings_before(config: RunConfig) -> list[str]:
    """What can be said of the run before it starts; empty where there is nothing to say."""
    said = (cannot_act(region_settings(config)), _too_wide(config.algo), _ragged(config))
    return [each for each in said if each is not None]


def _too_wide(algo: AlgoSpec) -> str | None:
    """That a threshold is finite and no divergence can exceed it."""
    largest = divergences[algo.divergence.kind].largest
    if algo.trust_region.scale != "none":
        return None
    for name, value in _bounds(algo).items():
        if name.startswith("delta") and largest <= value < math.inf:
            return (
                f"algo.trust_region.{name}={value:g} masks nothing: {algo.divergence.kind} is at most {largest:g}. "
                "Lower it, or leave the region out (algo=pg)."
            )
    return None


def _ragged(config: RunConfig) -> str | None:
    """That the last minibatch of every pass is smaller, and its update is as large as the others'."""
    trainer = config.trainer
    left = trainer.prompts_per_step % trainer.prompts_per_minibatch
    if not left or config.algo.dynamic_sampling.kind == "skip":
        return None
    return (
        f"trainer.prompts_per_minibatch={trainer.prompts_per_minibatch} does not divide trainer.prompts_per_step="
        f"{trainer.prompts_per_step}: the last minibatch of every epoch has {left} prompt{'s' * (left > 1)}, and its "
        "update is as large as the others'."
    )


def warnings_after(config: RunConfig, folder: RunFolder) -> list[str]:
    """What can be said of the run once its metrics are there; empty where it could learn, and its region acted."""
    rows = folder.rows("metrics.jsonl")
    said = did_not_act(region_settings(config), rows)
    return [*nothing_to_learn(rows), *([] if said is None else [said])]

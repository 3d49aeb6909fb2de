"""What a run should be warned of: a trust region that does not act, and rewards from which nothing can be learnt."""

from __future__ import annotations

from cppo_lab.config.schema import RunConfig
from cppo_lab.diagnostics.idle_region import RegionSettings, cannot_act, did_not_act
from cppo_lab.diagnostics.nothing_learnt import nothing_to_learn
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
    """What can be said of the run before it starts; empty where the region can act, or there is none."""
    said = cannot_act(region_settings(config))
    return [] if said is None else [said]


def warnings_after(config: RunConfig, folder: RunFolder) -> list[str]:
    """What can be said of the run once its metrics are there; empty where it could learn, and its region acted."""
    rows = folder.rows("metrics.jsonl")
    said = did_not_act(region_settings(config), rows)
    return [*nothing_to_learn(rows), *([] if said is None else [said])]

"""What of a method verl's own trainer cannot honour, and what of verl's settings a method decides. Needs no verl."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cppo_lab.objectives.spec import AlgoSpec

_OF_THE_METHOD = {
    "actor_rollout_ref.actor.policy_loss.loss_mode": ("vanilla", "surrogate and trust_region"),
    "actor_rollout_ref.actor.loss_agg_mode": ("token-mean", "aggregation"),
    "actor_rollout_ref.actor.clip_ratio": (0.2, "trust_region.clip_low and clip_high"),
    "actor_rollout_ref.actor.entropy_coeff": (0, "regulariser.entropy_coefficient"),
    "algorithm.use_kl_in_reward": (False, "regulariser.kl_where"),
    "algorithm.norm_adv_by_std_in_grpo": (True, "advantage"),
    "algorithm.rollout_correction.rollout_is": (None, "correction"),
    "algorithm.rollout_correction.rollout_rs": (None, "correction"),
}
"""Settings of verl that would be ignored: verl's default, and the part of a method that decides instead."""


def refusals(algo: AlgoSpec, config: Any) -> list[str]:
    """Why `algo` cannot be trained by `TrustRegionTrainer` under verl's `config`, one sentence each."""
    return [*_unsupported(algo), *_settings(algo, config)]


def _unsupported(algo: AlgoSpec) -> Iterator[str]:
    needs, name = algo.requirements, algo.name
    if needs.needs_values:
        yield f"{name} needs a critic, whose updates stay verl's own."
    if needs.needs_topk or needs.needs_full_distribution or needs.needs_rollout_entropy:
        yield (
            f"{name} reads the sampler's distribution at every token, which verl's agents do not bring; a method with "
            "a binary divergence reads the sampled tokens alone, and cppo-lab train backend=verl brings the top K."
        )
    if needs.needs_statistics:
        yield f"{name} reads statistics of the whole minibatch before its update, of which each worker sees a part."
    if needs.needs_threshold_controller:
        yield f"{name} adapts its thresholds by feedback, whose state verl's checkpoints do not hold."
    if needs.needs_reference and algo.regulariser.kl_where == "reward":
        yield f"{name} puts its KL penalty into the reward; give regulariser.kl_where=loss."
    if algo.dynamic_sampling.kind == "refill":
        yield (
            f"{name} samples until enough prompts have responses with different rewards; give a copy of the method "
            "with dynamic_sampling.kind=skip, or with none and verl's algorithm.filter_groups."
        )


def _settings(algo: AlgoSpec, config: Any) -> Iterator[str]:
    for key, (default, part) in _OF_THE_METHOD.items():
        value = _select(config, key)
        if value is not _MISSING and value != default and not (value is None and default is None):
            yield f"{key}={value}: {algo.name} decides it by its {part}; must be left at verl's default, {default}."
    if not _select(config, "actor_rollout_ref.rollout.calculate_log_probs"):
        yield (
            "actor_rollout_ref.rollout.calculate_log_probs=False: must be True, since a trust region compares the "
            "policy with the sampler."
        )
    if algo.requirements.needs_old_logp and _select(config, "algorithm.rollout_correction.bypass_mode"):
        yield (
            f"algorithm.rollout_correction.bypass_mode=True: must be False for {algo.name}, which reads pi_old and the "
            "sampler both."
        )
    holds = _select(config, "actor_rollout_ref.actor.use_kl_loss")
    if bool(holds) != algo.requirements.needs_reference:
        wanted = algo.requirements.needs_reference
        yield (
            f"actor_rollout_ref.actor.use_kl_loss={holds}: must be {wanted}, since {algo.name} has "
            f"{'a' if wanted else 'no'} KL penalty (regulariser.kl_coefficient)."
        )


_MISSING = object()


def _select(config: Any, key: str) -> Any:
    """The value under a dotted key of nested mappings; `_MISSING` where there is none."""
    for part in key.split("."):
        if config is None or part not in config:
            return _MISSING
        config = config[part]
    return config

"""What of a method TRL's trainer cannot honour, and what of TRL's settings a method decides. Needs no TRL."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cppo_lab.objectives.spec import AlgoSpec

_OF_THE_METHOD = {
    "loss_type": "surrogate and aggregation",
    "epsilon": "trust_region.clip_low",
    "epsilon_high": "trust_region.clip_high",
    "delta": "trust_region",
    "beta": "regulariser.kl_coefficient",
    "use_bias_correction_kl": "regulariser",
    "importance_sampling_level": "surrogate",
    "scale_rewards": "advantage",
    "multi_objective_aggregation": "advantage",
    "off_policy_mask_threshold": "trust_region",
    "top_entropy_quantile": "selection",
    "entropy_coef": "regulariser.entropy_coefficient",
    "use_adaptive_entropy": "regulariser.entropy_coefficient",
    "sapo_temperature_neg": "surrogate.tau_negative",
    "sapo_temperature_pos": "surrogate.tau_positive",
    "vespo_k_pos": "surrogate",
    "vespo_lambda_pos": "surrogate",
    "vespo_k_neg": "surrogate",
    "vespo_lambda_neg": "surrogate",
    "vllm_importance_sampling_mode": "correction",
    "vllm_importance_sampling_clip_max": "correction",
    "vllm_importance_sampling_clip_min": "correction",
}
"""Settings of GRPOConfig that would be ignored, with the part of a method that decides instead."""
_OF_THE_SAMPLER = {"top_p": (1.0,), "top_k": (0, None), "min_p": (None, 0.0), "repetition_penalty": (1.0,)}
"""Settings under which tokens are drawn from another distribution than the policy's, with their neutral values."""
_OF_GENERATION = _OF_THE_SAMPLER.keys() | {
    *("temperature", "do_sample", "num_beams", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff"),
    *(
        "frequency_penalty",
        "presence_penalty",
        "bad_words_ids",
        "logit_bias",
        "sequence_bias",
        "guidance_scale",
    ),
}
"""The same among the arguments of transformers' or vLLM's own sampling."""
_UNREPORTED = {
    "use_liger_kernel": "which computes TRL's own loss",
    "use_transformers_continuous_batching": "",
}


def refusals(
    algo: AlgoSpec, settings: Any, *, own_rollouts: bool = False, tools: bool = False, processes: int = 1
) -> list[str]:
    """Why `algo` cannot be trained under a GRPOConfig, one sentence each; empty where it can.

    own_rollouts: whether a `rollout_func` samples; tools: whether responses hold what tools said.
    """
    found = [*_unsupported(algo), *_settings(algo, settings)]
    needs = algo.requirements
    accumulation = settings.gradient_accumulation_steps
    if settings.steps_per_generation % accumulation:
        found.append(
            f"GRPOConfig.steps_per_generation={settings.steps_per_generation}: must be a multiple of "
            f"gradient_accumulation_steps, {accumulation}, so that the responses of an update are known before it."
        )
    if needs.needs_statistics and accumulation * processes > 1:
        found.append(
            f"{algo.name} reads statistics of the whole minibatch: needs gradient_accumulation_steps=1 and one process."
        )
    if needs.needs_rollout_entropy and settings.use_vllm:
        found.append(
            f"{algo.name} reads the sampler's entropy, which vLLM does not return; use use_vllm=False."
        )
    for given, what in ((own_rollouts, "a rollout_func"), (tools, "tools")):
        if given and (needs.needs_topk or needs.needs_rollout_entropy):
            found.append(
                f"{algo.name} reads the sampler's distribution at every token, which does not come through {what}; "
                "a method with a binary divergence reads the sampled tokens alone."
            )
    return found


def _unsupported(algo: AlgoSpec) -> Iterator[str]:
    needs, name = algo.requirements, algo.name
    if needs.needs_values:
        yield f"{name} needs a critic, which GRPOTrainer does not have."
    if needs.needs_full_distribution:
        yield f"{name} reads the sampler's whole distribution, which would have to be stored for every token."
    if needs.needs_threshold_controller:
        yield f"{name} adapts its thresholds by feedback, whose state TRL's checkpoints do not hold."
    if needs.needs_reference and algo.regulariser.kl_where == "reward":
        yield f"{name} puts its KL penalty into the reward; TRL has it in the loss: regulariser.kl_where=loss."
    if algo.dynamic_sampling.kind == "refill":
        yield (
            f"{name} samples until enough prompts have responses with different rewards, which TRL does not; "
            f"give algo=method({name!r}, dynamic_sampling__kind='skip')."
        )


def _settings(algo: AlgoSpec, settings: Any) -> Iterator[str]:
    defaults = {each.name: each.default for each in dataclasses.fields(settings)}
    for name, part in _OF_THE_METHOD.items():
        default, value = defaults[name], getattr(settings, name)
        if value != default:
            yield (
                f"GRPOConfig.{name}={value!r}: {algo.name} decides it by its {part}; "
                f"must be left at TRL's default, {default!r}."
            )
    for name, neutral in _OF_THE_SAMPLER.items():
        if getattr(settings, name) not in neutral:
            yield (
                f"GRPOConfig.{name}={getattr(settings, name)!r}: must be {neutral[0]!r}, since a trust region compares "
                "the policy with the distribution that tokens are drawn from."
            )
    for name in sorted(_OF_GENERATION & (settings.generation_kwargs or {}).keys()):
        yield (
            f"GRPOConfig.generation_kwargs={{{name!r}: …}}: must leave the distribution that tokens are drawn from to "
            "temperature alone, since a trust region compares the policy with it."
        )
    for name in _UNREPORTED:
        if getattr(settings, name):
            why = _UNREPORTED[name] or "which returns no log-probabilities"
            yield f"GRPOConfig.{name}=True: must be False, {why}."

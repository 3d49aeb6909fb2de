"""Which methods verl's own trainer can honour, and which of verl's settings a method decides. Needs no verl."""

from __future__ import annotations

import copy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

import cppo_lab
from cppo_lab.objectives import method, method_names

# The package imports verl, and this module of it does not.
_PATH = Path(cppo_lab.__file__).parent / "integrations" / "verl" / "method_limits.py"
_SPEC = spec_from_file_location("method_limits", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
method_limits = module_from_spec(_SPEC)
_SPEC.loader.exec_module(method_limits)

DEFAULTS: dict[str, Any] = {
    "actor_rollout_ref": {
        "actor": {
            "policy_loss": {"loss_mode": "vanilla"},
            "loss_agg_mode": "token-mean",
            "clip_ratio": 0.2,
            "entropy_coeff": 0,
            "use_kl_loss": False,
        },
        "rollout": {"calculate_log_probs": True},
    },
    "algorithm": {
        "use_kl_in_reward": False,
        "norm_adv_by_std_in_grpo": True,
        "rollout_correction": {"rollout_is": None, "rollout_rs": None, "bypass_mode": False},
    },
}
"""verl's own, but for the log-probabilities, which the plug-in needs."""


def refused(algo: Any, **changes: Any) -> list[str]:
    """The refusals under verl's defaults with `changes` by dotted keys, dots as two underscores."""
    config = copy.deepcopy(DEFAULTS)
    for key, value in changes.items():
        *groups, last = key.split("__")
        holder = config
        for group in groups:
            holder = holder[group]
        holder[last] = value
    found: list[str] = method_limits.refusals(algo, config)
    return found


@pytest.mark.parametrize(
    "name", ["cppo_binary", "dppo_tv", "grpo", "dr_grpo", "gspo", "grpo_tis", "trm_avg", "cispo"]
)
def test_methods_of_the_sampled_tokens_are_honoured(name: str) -> None:
    assert refused(method(name)) == []


def test_what_is_refused_is_what_verl_does_not_bring() -> None:
    for name in method_names():
        algo = method(name)
        needs = algo.requirements
        missing = (
            needs.needs_values
            or needs.needs_topk
            or needs.needs_full_distribution
            or needs.needs_rollout_entropy
            or needs.needs_statistics
            or needs.needs_threshold_controller
            or needs.needs_reference
            or algo.dynamic_sampling.kind == "refill"
        )
        assert bool(refused(algo)) == bool(missing), name


@pytest.mark.parametrize(
    ("change", "value", "sentence"),
    [
        (
            "actor_rollout_ref__actor__clip_ratio",
            0.3,
            "actor_rollout_ref.actor.clip_ratio=0.3: grpo decides it",
        ),
        (
            "actor_rollout_ref__actor__policy_loss__loss_mode",
            "gspo",
            "actor_rollout_ref.actor.policy_loss.loss_mode=gspo: grpo decides it",
        ),
        (
            "actor_rollout_ref__rollout__calculate_log_probs",
            False,
            "actor_rollout_ref.rollout.calculate_log_probs=False: must be True",
        ),
        (
            "algorithm__rollout_correction__rollout_is",
            "token",
            "algorithm.rollout_correction.rollout_is=token",
        ),
        (
            "actor_rollout_ref__actor__use_kl_loss",
            True,
            "actor_rollout_ref.actor.use_kl_loss=True: must be False, since grpo has no KL penalty",
        ),
    ],
)
def test_settings_that_would_be_ignored_are_refused(change: str, value: Any, sentence: str) -> None:
    (found,) = refused(method("grpo"), **{change: value})
    assert found.startswith(sentence)


def test_a_kl_penalty_needs_verl_s_reference() -> None:
    grpo = method("grpo", regulariser__kl_coefficient=0.04)
    (found,) = refused(grpo)
    assert "use_kl_loss=False: must be True, since grpo has a KL penalty" in found
    assert refused(grpo, actor_rollout_ref__actor__use_kl_loss=True) == []


def test_a_method_of_two_anchors_needs_both() -> None:
    both = method("grpo_tis")
    assert both.requirements.needs_old_logp
    (found,) = refused(both, algorithm__rollout_correction__bypass_mode=True)
    assert found.startswith("algorithm.rollout_correction.bypass_mode=True: must be False for grpo_tis")


def test_a_penalty_in_the_reward_is_refused() -> None:
    grpo = method("grpo", regulariser__kl_coefficient=0.04, regulariser__kl_where="reward")
    assert any("puts its KL penalty into the reward" in each for each in refused(grpo))

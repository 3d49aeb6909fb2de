"""The main threshold of a method, which tuning multiplies, comes from what the rules declare."""

from __future__ import annotations

from pathlib import Path

import pytest

from cppo_lab.objectives.main_threshold import at_multiple, main_threshold, never_acts
from cppo_lab.objectives.named import method, method_names

PUBLISHED = {
    "grpo": {"trust_region.clip_low": 0.2, "trust_region.clip_high": 0.28},
    "dppo_topk_tv": {"trust_region.delta": 0.15},
    "cppo": {"trust_region.delta": 0.15},
    "trm_avg": {"trust_region.delta_mean": 0.001},
    "trm_max_avg": {"trust_region.delta": 0.1, "trust_region.delta_mean": 0.002},
    # CISPO has no lower bound.
    "cispo": {"surrogate.ratio_high": 1.28},
    "minpro": {"surrogate.ratio_low": 0.8, "surrogate.ratio_high": 1.28},
    "drpo": {"surrogate.penalty_epsilon": 12.5},
    "dro": {"regulariser.anchor_coefficient": 0.025},
    "sapo": {"surrogate.tau_positive": 1.0, "surrogate.tau_negative": 1.05},
    "pg": {},
    "reinforce": {},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_what_decides_how_far_the_policy_may_move(name: str) -> None:
    assert main_threshold(method(name)) == PUBLISHED[name]


def test_a_multiple_of_a_ratio_bound_is_of_its_distance_from_1_and_stays_in_its_range() -> None:
    assert at_multiple(method("minpro"), 2) == {"surrogate.ratio_low": 0.6, "surrogate.ratio_high": 1.56}
    assert at_multiple(method("minpro"), 8) == {"surrogate.ratio_low": 0.0, "surrogate.ratio_high": 3.24}
    assert at_multiple(method("dppo_topk_tv"), 4) == {"trust_region.delta": 0.6}


def test_the_methods_that_tune_the_learning_rate_alone_are_listed() -> None:
    without = [name for name in method_names() if not main_threshold(method(name, max_response_length=64))]
    text = " ".join((Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8").split())
    listed = ", ".join(f"`{name}`" for name in without)
    assert f"without one spends all its trials on the learning rate: {listed}." in text


def test_a_multiple_above_1_loosens_what_tightens_as_it_grows() -> None:
    assert at_multiple(method("dro"), 2) == {"regulariser.anchor_coefficient": 0.0125}
    assert at_multiple(method("sapo"), 0.5) == {"surrogate.tau_positive": 2.0, "surrogate.tau_negative": 2.1}


@pytest.mark.parametrize("name", method_names())
def test_the_published_threshold_is_its_own_multiple_of_1(name: str) -> None:
    algo = method(name, max_response_length=64)
    assert at_multiple(algo, 1) == pytest.approx(main_threshold(algo))


def test_only_a_bounded_divergence_has_a_threshold_that_never_acts() -> None:
    total_variation, kl = method("dppo_topk_tv"), method("dppo_topk_kl")
    assert not never_acts(total_variation, at_multiple(total_variation, 4))
    assert never_acts(total_variation, at_multiple(total_variation, 8))
    assert not never_acts(kl, at_multiple(kl, 800))
    assert not never_acts(method("pg"), {})

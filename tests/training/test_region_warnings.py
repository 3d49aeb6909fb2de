"""A trust region that never acts is said out loud, by real runs; one that acts, and plain policy gradient, never."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import TINY, tiny_config

from cppo_lab.diagnostics.idle_region import IDLE_SHARE, RegionSettings, cannot_act, did_not_act
from cppo_lab.training.region_warnings import region_settings, warnings_before
from cppo_lab.training.run import run

Invoke = Callable[..., tuple[int, str, str]]
ONE_UPDATE = ("trainer.epochs=1", "trainer.prompts_per_minibatch=6")
QUICKSTART = ("pg", "grpo", "dppo_topk_tv", "cppo")


@pytest.mark.parametrize("algo", ["grpo", "cppo", "trm_avg", "gspo", "ppo"])
def test_one_update_per_rollout_is_named_before_the_run(algo: str, output: Path) -> None:
    (said,) = warnings_before(tiny_config(output, f"algo={algo}", *ONE_UPDATE))
    assert algo in said
    assert "one update per rollout" in said
    assert "trainer.epochs" in said


@pytest.mark.parametrize(
    "overrides",
    [
        ["algo=pg"],
        ["algo=reinforce"],
        ["algo=cispo"],
        ["algo=grpo", "trainer.staleness=1"],
        ["algo=cppo", "engine.weights=int4"],
        ["algo=cppo", "trainer.epochs=2"],
    ],
)
def test_nothing_is_said_before_a_run_whose_region_can_act_or_that_has_none(
    overrides: list[str], output: Path
) -> None:
    assert warnings_before(tiny_config(output, *ONE_UPDATE, *overrides)) == []


@pytest.mark.parametrize("algo", ["dppo_tv", "dppo_topk_tv", "cppo"])
def test_a_threshold_that_no_divergence_exceeds_is_named_before_the_run(algo: str, output: Path) -> None:
    (said,) = warnings_before(tiny_config(output, f"algo={algo}", "algo.trust_region.delta=1.5"))
    assert "algo.trust_region.delta=1.5 masks nothing: " in said
    assert "is at most 1." in said
    assert warnings_before(tiny_config(output, f"algo={algo}", "algo.trust_region.delta=0.9")) == []
    assert warnings_before(tiny_config(output, "algo=dppo_kl", "algo.trust_region.delta=1.5")) == []


def test_a_ragged_last_minibatch_is_named_before_the_run(output: Path) -> None:
    ragged = "trainer.prompts_per_minibatch=4"
    (said,) = warnings_before(tiny_config(output, "algo=grpo", ragged))
    assert "trainer.prompts_per_step=6: the last minibatch of every epoch has 2 prompts" in said
    assert warnings_before(tiny_config(output, "algo=grpo", ragged, "algo.dynamic_sampling.kind=skip")) == []


def test_infinite_thresholds_are_named_before_the_run(output: Path) -> None:
    (said,) = warnings_before(tiny_config(output, "algo=dppo_tv", "algo.trust_region.delta=inf"))
    assert "algo.trust_region.delta is infinite" in said


def test_a_run_with_one_update_per_rollout_warns_before_and_after_and_in_run_json(
    output: Path, invoke: Invoke
) -> None:
    overrides = [each for each in TINY if not each.startswith("trainer.epochs")]
    code, out, err = invoke("train", *overrides, *ONE_UPDATE, "algo=grpo", "-o", str(output))
    assert code == 0, err
    said = " ".join(out.split())
    assert "Warning: The trust region ratio_clip of grpo cannot act: with one update per rollout" in said
    assert "Warning: The trust region ratio_clip of grpo never acted: it masked none" in said
    (warning,) = run(tiny_config(output, *ONE_UPDATE, "algo=grpo")).info["warnings"]
    assert "never acted" in warning


@pytest.mark.parametrize("algo", QUICKSTART)
def test_the_quickstart_regime_warns_of_nothing(algo: str, output: Path) -> None:
    folder = run(tiny_config(output, f"algo={algo}", "trainer.epochs=4"))
    assert folder.info["warnings"] == []


def test_a_policy_that_hardly_moves_is_told_with_its_ratios(output: Path) -> None:
    (said,) = run(tiny_config(output, "algo=grpo", "trainer.lr=1e-6")).info["warnings"]
    assert "never acted" in said
    assert "Ratios stayed between" in said
    assert "trainer.lr" in said


REGION = RegionSettings(
    method="grpo",
    kind="ratio_clip",
    anchor="old",
    has_budget=False,
    bounds={"clip_low": 0.2, "clip_high": 0.28},
    window=(0.8, 1.28),
    updates_per_rollout=8,
    staleness=0,
    sampler_is_policy=True,
)


def row(**values: float | None) -> dict[str, float | None]:
    names = {"masked": "mask/share", "budget": "mask/share_budget", "low": "policy/ratio_min_vs_old"}
    names["high"] = "policy/ratio_max_vs_old"
    return {names[key]: value for key, value in values.items()}


def test_the_measured_cause_is_named() -> None:
    inside = did_not_act(REGION, [row(masked=0.0, low=0.9, high=1.2), row(masked=0.0, low=0.85, high=1.1)])
    assert inside is not None
    assert "Ratios stayed between 0.85 and 1.2, inside the window from 0.8 to 1.28" in inside
    still = did_not_act(REGION, [row(masked=0.0, low=0.9999, high=1.0001)])
    assert still is not None
    assert "never left its anchor" in still


def test_the_share_is_averaged_over_the_run_and_steps_without_updates_do_not_count() -> None:
    assert did_not_act(REGION, [row(masked=None), row(masked=0.0), row(masked=3 * IDLE_SHARE)]) is None
    assert did_not_act(REGION, [row(masked=0.0), row(masked=1.5 * IDLE_SHARE)]) is not None
    assert did_not_act(REGION, [row(masked=None)]) is None


def test_a_budget_that_never_binds_is_told_while_the_threshold_acts() -> None:
    budgeted = replace(REGION, method="cppo", kind="prefix_budget", window=None, has_budget=True)
    said = did_not_act(budgeted, [row(masked=0.02, budget=0.0)])
    assert said is not None
    assert "budget of cppo never bound" in said
    assert "2%" in said
    assert did_not_act(budgeted, [row(masked=0.02, budget=0.01)]) is None


def test_without_a_region_nothing_is_ever_said(output: Path) -> None:
    settings = region_settings(tiny_config(output, "algo=pg", *ONE_UPDATE))
    assert settings.is_off
    assert cannot_act(settings) is None
    assert did_not_act(settings, [row(masked=0.0, low=1.0, high=1.0)]) is None

"""Diagnostics against the golden vectors, against direct formulas, and across micro-batches."""

import math
from dataclasses import replace

import golden_vectors as golden
import pytest
import torch

from cppo_lab.diagnostics.metrics import Diagnostics, mismatch
from cppo_lab.diagnostics.position_profiles import PositionProfiler
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.objective import token_objective
from cppo_lab.objectives.prefixes import positions
from cppo_lab.objectives.spec import AlgoSpec


def diagnose(batch: TokenBatch, algo: AlgoSpec, pieces: int = 1) -> dict[str, float]:
    diagnostics = Diagnostics()
    for rows in torch.arange(batch.logp.shape[0]).chunk(pieces):
        part = batch.rows(rows)
        diagnostics.update(part, token_objective(part, algo))
    return diagnostics.result()


@pytest.mark.parametrize("case", golden.TOKEN_CASES)
def test_policy_diagnostics_equal_the_vectors(case: str) -> None:
    want = golden.expected(case, "diagnostics_pi_vs_mu")
    batch = golden.load(case, torch.float64)
    found = diagnose(batch, golden.POINTS["ppo_clip"])
    for ours, theirs in {
        "policy/k1_vs_rollout": "k1",
        "policy/k2_vs_rollout": "k2",
        "policy/k3_vs_rollout": "k3",
        "policy/ratio_mean_vs_rollout": "ratio_mean",
        "policy/ratio_max_vs_rollout": "ratio_max",
        "policy/ratio_min_vs_rollout": "ratio_min",
        "policy/tv_vs_rollout": "prob_absdiff_mean",
        "policy/ess_token_vs_rollout": "ess_token",
        "policy/ess_sequence_vs_rollout": "ess_seq",
    }.items():
        assert found[ours] == pytest.approx(want[theirs], abs=1e-9), ours
    for ours, theirs in {
        "policy/ratio_p50_vs_rollout": "ratio_p50",
        "policy/ratio_p99_vs_rollout": "ratio_p99",
    }.items():
        assert found[ours] == pytest.approx(want[theirs], rel=1e-6), ours
    error = mismatch(batch.logp.detach(), batch.rollout_logp, batch.response_mask)
    for ours, theirs in {
        "mismatch/logp_absdiff_mean": "logp_absdiff_mean",
        "mismatch/logp_absdiff_max": "logp_absdiff_max",
        "mismatch/logp_relative_of_sums": "rel_logp_err_ratio_of_sums",
        "mismatch/logp_relative_mean": "rel_logp_err_tokenmean",
        "mismatch/prob_absdiff_mean": "prob_absdiff_mean",
        "mismatch/prob_absdiff_max": "prob_absdiff_max",
        "mismatch/prob_correlation": "pearson_prob",
    }.items():
        assert error[ours] == pytest.approx(want[theirs], abs=1e-9), ours
    inside = batch.response_mask
    differences = (batch.logp.detach() - batch.rollout_logp)[inside].abs()
    p99 = float(differences.quantile(0.99))
    assert error["mismatch/logp_absdiff_p99"] == pytest.approx(p99, abs=1e-12)


@pytest.mark.parametrize("case", ["base", "calib", "flip"])
@pytest.mark.parametrize("method", ["cppo_fixed_0.015", "cppo_adaptive_0.02", "cppo_soft_0.02"])
def test_masked_shares_equal_the_vectors(case: str, method: str) -> None:
    want = golden.expected(case, method)
    found = diagnose(golden.load(case, torch.float64), golden.POINTS[method])
    assert found["mask/share"] == pytest.approx(want["masked_fraction"], abs=1e-12)
    share = want["budget_mask_share"]
    assert found["mask/budget_share"] == pytest.approx(math.nan if share is None else share, nan_ok=True)
    assert found["mask/share_threshold"] + found["mask/share_budget"] == pytest.approx(found["mask/share"])


@pytest.mark.parametrize("method", ["cppo_adaptive_0.02", "dppo_binary_tv", "ppo_clip", "gspo"])
def test_micro_batches_of_unequal_length_change_no_metric(method: str) -> None:
    batch = golden.load("flip", torch.float64)
    whole, split = diagnose(batch, golden.POINTS[method]), diagnose(batch, golden.POINTS[method], pieces=7)
    assert whole.keys() == split.keys()
    for name, value in whole.items():
        assert split[name] == pytest.approx(value, rel=1e-12, nan_ok=True), name


def test_undefined_shares_are_nan_and_not_zero() -> None:
    batch = golden.load("base", torch.float64)
    found = diagnose(batch, golden.POINTS["cispo"])
    assert found["mask/share"] == 0
    assert math.isnan(found["mask/budget_share"])
    assert math.isnan(found["policy/divergence"])
    assert math.isnan(found["policy/entropy"])
    assert math.isnan(found["budget/effective"])


def test_adaptive_budgets_report_floor_and_ceiling_rows() -> None:
    found = diagnose(golden.load("calib", torch.float64), golden.POINTS["cppo_adaptive_0.02"])
    assert found["budget/effective"] == pytest.approx((0.0284 + 0.02 + 0.04) / 3, abs=1e-6)
    assert found["budget/floor_share"] == pytest.approx(1 / 3)
    assert found["budget/ceiling_share"] == pytest.approx(1 / 3)


def test_ratio_clip_counts_only_tokens_whose_gradient_is_cut() -> None:
    found = diagnose(golden.load("base", torch.float64), golden.POINTS["ppo_clip"])
    # Seven of the eight ratios leave [0.8, 1.2] or sit inside it; only four lose their gradient.
    assert found["mask/share"] == pytest.approx(4 / 8)
    assert found["mask/share_positive_advantage"] == pytest.approx(3 / 5)
    assert found["mask/share_negative_advantage"] == pytest.approx(1 / 3)


def test_position_profiles_count_every_token_once_and_average_within_bins() -> None:
    batch = golden.load("flip", torch.float64)
    objective = token_objective(batch, golden.POINTS["cppo_fixed_0.015"])
    profiler = PositionProfiler()
    profiler.update(batch, objective)
    relative, absolute = profiler.relative(), profiler.absolute()
    tokens = int(batch.response_mask.sum())
    assert sum(relative.count) == sum(absolute.count) == tokens
    assert len(relative.count) == 20
    assert absolute.edges == [1.0, 2.0, 4.0, 8.0, 16.0]
    first = objective.divergence[:, 0][batch.response_mask[:, 0]]
    assert absolute.divergence_mean[0] == pytest.approx(first.mean().item(), rel=1e-6)
    assert absolute.divergence_top_decile[0] == pytest.approx(first.max().item(), rel=1e-6)
    assert absolute.threshold_mean[0] == pytest.approx(0.15, rel=1e-6)
    # The first weight is 1; later ones are smaller, so that D_t itself may be larger than c_t.
    assert absolute.induced_threshold_mean[0] == pytest.approx(0.15, rel=1e-6)
    assert absolute.induced_threshold_mean[1] > absolute.threshold_mean[1]
    assert all(math.isnan(value) for value in absolute.mismatch_mean), (
        "without the trainer's own log-probabilities"
    )
    masked = sum(share * count for share, count in zip(absolute.masked_share, absolute.count, strict=True))
    assert masked == pytest.approx(int(objective.masked.sum()), rel=1e-6)


def test_mismatch_by_position_is_that_of_the_trainer_before_any_update() -> None:
    batch = golden.load("flip", torch.float64)
    position = positions(batch.response_mask)
    apart = (position - 1).double() / 10
    batch = replace(batch, old_logp=batch.rollout_logp - apart)
    profiler = PositionProfiler()
    profiler.update(batch, token_objective(batch, golden.POINTS["cppo_fixed_0.015"]))
    absolute = profiler.absolute()
    assert absolute.mismatch_mean[0] == pytest.approx(0.0, abs=1e-7)
    expected = apart[batch.response_mask & ((position == 2) | (position == 3))].mean()
    assert absolute.mismatch_mean[1] == pytest.approx(float(expected), rel=1e-5)


def test_responses_whose_weight_vanishes_are_counted() -> None:
    algo = AlgoSpec(
        name="gamma",
        paper="",
        anchor="rollout",
        paper_anchor="rollout",
        surrogate={"kind": "gamma", "ratio": "sequence_product"},
    )
    # Products of e^-3, 1, e^3 and e^0.5: phi is 0.043, 1, 0 and 0.39 for A > 0, and there is a row without tokens.
    logp = torch.tensor([[-3.0, -3.0], [-1.0, -2.0], [-0.5, -0.5], [-1.25, -1.25], [0.0, 0.0]])
    rollout = torch.tensor([[-1.5, -1.5], [-1.5, -1.5], [-2.0, -2.0], [-1.5, -1.5], [-1.0, -1.0]])
    mask = torch.tensor([[True, True]] * 4 + [[False, False]])
    batch = TokenBatch(logp, rollout, torch.ones(5), mask)
    for pieces in (1, 2):
        assert diagnose(batch, algo, pieces)["policy/vanished_share"] == 0.25
    assert "policy/vanished_share" not in diagnose(batch, golden.POINTS["ppo_clip"])

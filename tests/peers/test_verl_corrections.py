"""verl's rollout correction against the lab's corrections and TRM; its rejections shrink the denominator."""

from dataclasses import replace
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.verl
helper = pytest.importorskip(
    "verl.trainer.ppo.rollout_corr_helper", reason="verl is not installed: make test-verl"
)
pytest.importorskip("yaml", reason="PyYAML is not installed")

from peer_batches import (  # noqa: E402
    BATCHES,
    FEW,
    HORIZON,
    Result,
    assert_both_same,
    assert_same,
    ours,
    random_batches,
    with_region,
)
from verl.trainer.config.algorithm import RolloutCorrectionConfig  # noqa: E402
from verl.workers.config.actor import PolicyLossConfig  # noqa: E402
from verl_losses import clip, config, theirs  # noqa: E402

from cppo_lab.objectives import TokenBatch, method, token_objective  # noqa: E402
from cppo_lab.objectives.spec import AlgoSpec, CorrectionSpec, SurrogateSpec  # noqa: E402

WEIGHTS: dict[str, tuple[CorrectionSpec, str, float | str]] = {
    "token_tis": (CorrectionSpec(kind="token_tis", high=2.0), "token", 2.0),
    "sequence_tis": (CorrectionSpec(kind="sequence_tis", high=2.0), "sequence", 2.0),
    "icepop": (CorrectionSpec(kind="icepop", low=0.5, high=5.0), "token", "0.5_5.0"),
    "mis": (CorrectionSpec(kind="mis", high=3.0), "sequence", "1e-300_3.0"),
}
REJECTIONS: dict[str, tuple[CorrectionSpec, str, str]] = {
    # verl bounds exp(mean log(mu / pi_old)), the lab its inverse.
    "geometric": (
        CorrectionSpec(kind="geometric", low=0.98, high=1.01),
        "seq_mean_k1",
        f"{1 / 1.01}_{1 / 0.98}",
    ),
    "k3": (CorrectionSpec(kind="k3", high=0.01), "seq_mean_k3", "0.01"),
}
TRM: dict[str, tuple[str, str]] = {
    "trm_max": ("seq_max_k2", "0.05"),
    "trm_avg": ("seq_mean_k3", "0.001"),
    "trm_max_avg": ("seq_max_k2,seq_mean_k3", "0.1,0.002"),
}


def corrected(spec: CorrectionSpec, aggregation: str = "token_mean") -> AlgoSpec:
    horizon = HORIZON if aggregation == "sequence_mean_token_sum_norm" else None
    grpo = method("grpo")
    shape = grpo.aggregation.replace(kind=aggregation, horizon=horizon)  # type: ignore[arg-type]
    return grpo.replace(correction=spec, aggregation=shape)


def drift(batch: TokenBatch) -> torch.Tensor:
    assert batch.old_logp is not None
    return batch.old_logp - batch.rollout_logp


def rescaled(result: Result, factor: torch.Tensor) -> Result:
    return result[0] * factor, result[1] * factor


def bypass(batch: TokenBatch, **fields: Any) -> Result:
    """verl's bypass mode: one old policy, mu, against the current one."""
    policy_loss = PolicyLossConfig(rollout_correction=RolloutCorrectionConfig(bypass_mode=True, **fields))
    actor = config(policy_loss=policy_loss, **clip(0.2, 0.28))
    return theirs("bypass_mode", batch, anchor="rollout", actor=actor)


def test_the_named_corrections_are_among_those_compared() -> None:
    assert method("grpo_tis").correction == WEIGHTS["token_tis"][0]
    assert method("icepop").correction == WEIGHTS["icepop"][0]


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean_token_mean"])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_importance_weights_equal_verl(kind: str, aggregation: str) -> None:
    spec, level, threshold = WEIGHTS[kind]
    algo = corrected(spec, aggregation)
    for batch in random_batches():
        weights, _ = helper.compute_rollout_correction_weights(
            drift(batch), batch.response_mask.long(), level, threshold
        )
        factor = token_objective(batch, algo).correction
        assert factor is not None
        assert_same(factor, weights * batch.response_mask)
        other = theirs("vanilla", batch, aggregation, weights=weights, actor=config(**clip(0.2, 0.28)))
        assert_both_same(ours(batch, algo), other)


@pytest.mark.parametrize("kind", REJECTIONS)
def test_rejections_equal_verl_once_its_denominator_is_that_of_the_full_mask(kind: str) -> None:
    spec, option, threshold = REJECTIONS[kind]
    algo = corrected(spec)
    shrunk = 0
    for batch in random_batches():
        mask, _ = helper.compute_rollout_rejection_mask(
            drift(batch), batch.response_mask.long(), option, threshold
        )
        factor = token_objective(batch, algo).correction
        assert factor is not None
        assert torch.equal(factor * batch.response_mask, mask.to(factor.dtype))
        if not bool(mask.any()):
            continue
        other = theirs("vanilla", batch, mask=mask, actor=config(**clip(0.2, 0.28)))
        share = mask.sum().double() / batch.response_mask.sum()
        assert_both_same(ours(batch, algo), rescaled(other, share))
        shrunk += int(float(other[1].abs().max()) > 1.1 * float(ours(batch, algo)[1].abs().max()))
    assert shrunk > 0.15 * BATCHES, "verl's rejection shrinks the denominator"


@pytest.mark.parametrize("name", TRM)
def test_trm_equals_verl_s_rejection_in_bypass_mode_up_to_its_denominator(name: str) -> None:
    options, thresholds = TRM[name]
    algo = method(name)
    shrunk = 0
    for batch in random_batches():
        log_rho = (batch.logp - batch.rollout_logp).detach()
        mask, _ = helper.compute_rollout_rejection_mask(
            log_rho, batch.response_mask.long(), options, thresholds
        )
        gate = token_objective(batch, algo).gate
        assert torch.equal(gate, mask.to(gate.dtype))
        if not bool(mask.any()):
            continue
        other = bypass(
            batch,
            loss_type="reinforce",
            rollout_is="token",
            rollout_is_threshold=1e30,
            rollout_rs=options,
            rollout_rs_threshold=thresholds,
        )
        share = mask.sum().double() / batch.response_mask.sum()
        mine = ours(batch, algo.replace(surrogate=SurrogateSpec(kind="truncated")))
        assert_both_same(mine, rescaled(other, share))
        assert_same(ours(batch, algo)[1], other[1] * share)
        shrunk += int(float(other[1].abs().max()) > 1.1 * float(mine[1].abs().max()))
    assert shrunk > 0.15 * BATCHES, "verl divides by the tokens that it kept"


def test_trm_never_sees_the_update_in_verl_s_decoupled_mode() -> None:
    # There the statistic compares pi_old with mu; the current policy may be anywhere.
    options, thresholds = TRM["trm_max"]
    differing = 0
    for batch in random_batches(FEW):
        mask, _ = helper.compute_rollout_rejection_mask(
            drift(batch), batch.response_mask.long(), options, thresholds
        )
        gate = token_objective(batch, method("trm_max")).gate
        differing += int((gate.bool() != mask.bool()).any(-1).sum())
        assert batch.old_logp is not None
        standing = replace(batch, logp=batch.old_logp.clone().requires_grad_())
        gate = token_objective(standing, method("trm_max")).gate
        assert torch.equal(gate, mask.to(gate.dtype))
    assert differing > 100


def test_bypass_mode_clips_around_mu_which_the_lab_calls_a_forced_anchor() -> None:
    algo = corrected(CorrectionSpec())
    forced = algo.replace(anchor="rollout", force_anchor=True)
    for batch in random_batches():
        other = bypass(batch, loss_type="ppo_clip", rollout_is="token", rollout_is_threshold=2.0)
        assert_both_same(ours(batch, with_region(forced, dual_clip=1e6)), other)


def test_truncated_importance_weights_in_bypass_mode_are_a_truncated_surrogate() -> None:
    algo = method("pg").replace(surrogate=SurrogateSpec(kind="truncated", ratio_high=2.0))
    for batch in random_batches():
        other = bypass(batch, loss_type="reinforce", rollout_is="token", rollout_is_threshold=2.0)
        assert_both_same(ours(batch, algo), other)

"""Loss and gradient equal those of TRL's GRPO trainer where both mean the same; where not, the difference is
stated."""

from dataclasses import replace
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.trl,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is not installed: make test-trl")
pytest.importorskip("yaml", reason="PyYAML is not installed")

from peer_batches import (  # noqa: E402
    BATCHES,
    FEW,
    HORIZON,
    SEEDS,
    assert_both_same,
    assert_differ,
    assert_same,
    ours,
    random_batch,
    random_batches,
    with_aggregation,
    with_region,
    without_row,
)
from trl_trainers import inputs, last_metric, loss, theirs, trainer  # noqa: E402

from cppo_lab.objectives import TokenBatch, method, token_objective  # noqa: E402
from cppo_lab.objectives.spec import AlgoSpec, CorrectionSpec, RegulariserSpec, SurrogateSpec  # noqa: E402

CLIP_HIGHER: dict[str, Any] = {"epsilon": 0.2, "epsilon_high": 0.28}
GSPO: dict[str, Any] = {"importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4}
NAMED: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo", **CLIP_HIGHER},
    "dapo": {"loss_type": "dapo", **CLIP_HIGHER},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.28},
    "gspo": {"loss_type": "grpo", **GSPO},
    "gmpo": {"gmpo": True},
    "luspo": {
        "loss_type": "luspo",
        "importance_sampling_level": "sequence",
        "epsilon": 2e-3,
        "epsilon_high": 2.5e-3,
    },
}
"""Named methods under TRL's settings; what is missing is TRL's default."""
AGGREGATIONS = {
    "grpo": "sequence_mean_token_mean",
    "bnpo": "token_mean",
    "dapo": "token_mean",
    "dr_grpo": "sequence_mean_token_sum_norm",
}


def sapo_in_float32() -> AlgoSpec:
    """SAPO with the negative temperature that TRL computes with, whatever the dtype of its inputs."""
    algo = method("sapo")
    rounded = torch.tensor(algo.surrogate.tau_negative).double().item()
    return algo.replace(surrogate=algo.surrogate.replace(tau_negative=rounded))


def with_correction(algo: AlgoSpec, **fields: Any) -> AlgoSpec:
    return algo.replace(correction=CorrectionSpec(**fields))


@pytest.mark.parametrize("name", NAMED)
def test_named_method_equals_trl(name: str) -> None:
    algo = method(name, max_response_length=HORIZON)
    for batch in random_batches():
        assert_both_same(ours(batch, algo), theirs(batch, **NAMED[name]))


def at_pi_old(name: str) -> AlgoSpec:
    """A method of the sampler's ratio with TRL's, which is that of the recomputed policy."""
    return method(name).replace(anchor="old", force_anchor=True)


def test_vespo_equals_trl() -> None:
    algo = at_pi_old("vespo")
    for batch in random_batches():
        assert_both_same(ours(batch, algo), theirs(batch, loss_type="vespo"))


def test_vespo_weights_are_trls() -> None:
    algo = at_pi_old("vespo")
    for batch in random_batches(FEW):
        assert batch.old_logp is not None
        objective = token_objective(batch, algo)
        (slope,) = torch.autograd.grad(objective.loss.sum(), batch.logp)
        advantages, mask = batch.advantages.unsqueeze(-1), batch.response_mask
        log_ratio = (batch.logp - batch.old_logp).detach()
        weights = trainer(loss_type="vespo").get_gamma_weights(advantages, log_ratio, mask, None)
        assert_same(-slope, weights * advantages * mask)


def test_sapo_equals_trl_once_its_temperature_is_rounded_to_float32() -> None:
    for batch in random_batches():
        other = theirs(batch, loss_type="sapo")
        assert_both_same(ours(batch, sapo_in_float32()), other)
        value, slope = ours(batch, method("sapo"))
        # Terms of either sign cancel in the loss, so that its own size says nothing about their rounding.
        torch.testing.assert_close(value, other[0], rtol=0.0, atol=1e-6)
        assert_same(slope, other[1], 1e-6)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", AGGREGATIONS)
def test_loss_types_are_the_clipped_surrogate_under_four_aggregations(loss_type: str, level: str) -> None:
    name, settings = ("grpo", CLIP_HIGHER) if level == "token" else ("gspo", GSPO)
    algo = with_aggregation(method(name), AGGREGATIONS[loss_type])
    for batch in random_batches():
        assert_both_same(ours(batch, algo), theirs(batch, loss_type=loss_type, **settings))


def test_sequence_level_under_the_default_loss_type_is_not_gspo() -> None:
    # A token mean weighs a response by its length.
    differing = 0
    for batch in random_batches(FEW):
        differing += int(not torch.allclose(ours(batch, method("gspo"))[0], theirs(batch, **GSPO)[0]))
    assert differing > 20


def test_two_sided_clip_is_the_dual_clip_where_delta_is_above_the_window() -> None:
    settings = {"loss_type": "grpo", **CLIP_HIGHER}
    grpo = method("grpo")
    for batch in random_batches():
        dual = with_region(grpo, dual_clip=1.6)
        assert_both_same(ours(batch, dual), theirs(batch, delta=1.6, **settings))


def test_two_sided_clip_below_the_window_cuts_positive_advantages_instead() -> None:
    settings = {"loss_type": "grpo", **CLIP_HIGHER}
    grpo = method("grpo")
    differing = 0
    for batch in random_batches():
        other = theirs(batch, delta=1.1, **settings)
        differing += int(not torch.allclose(ours(batch, with_region(grpo, dual_clip=1.1))[0], other[0]))
        # The minimum with the window's own 1.28 takes over where the advantage is negative.
        assert_both_same(ours(batch, with_region(grpo, clip_high=0.1, dual_clip=1.28)), other)
    assert differing > 0.6 * BATCHES


def test_cispo_without_an_upper_bound_turns_nearly_every_weight_into_epsilon() -> None:
    algo = method("cispo")
    flat = algo.replace(surrogate=SurrogateSpec(kind="truncated", ratio_high=0.2))
    for batch in random_batches():
        other = theirs(batch, loss_type="cispo")
        assert_both_same(ours(batch, flat), other)
        if float(batch.advantages.abs().max()) > 0:
            assert_differ(ours(batch, algo)[1], other[1], 1e-6)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_kl_in_the_loss_equals_trl_without_its_bias_correction(loss_type: str) -> None:
    algo = with_aggregation(method("grpo"), AGGREGATIONS[loss_type])
    algo = algo.replace(regulariser=RegulariserSpec(kl_coefficient=0.1, kl_kind="k3"))
    settings = {"loss_type": loss_type, "beta": 0.1, **CLIP_HIGHER}
    for batch in random_batches():
        assert_both_same(ours(batch, algo), theirs(batch, use_bias_correction_kl=False, **settings))


def test_kl_in_the_loss_is_multiplied_by_the_ratio_in_trl_by_default() -> None:
    algo = method("grpo").replace(regulariser=RegulariserSpec(kl_coefficient=0.1, kl_kind="k3"))
    settings = {"loss_type": "grpo", "beta": 0.1, **CLIP_HIGHER}
    differing = 0
    for batch in random_batches():
        differing += int(not torch.allclose(ours(batch, algo)[0], theirs(batch, **settings)[0]))
        assert batch.old_logp is not None
        onpolicy = replace(batch, logp=batch.old_logp.clone().requires_grad_())
        mine, other = ours(onpolicy, algo), theirs(onpolicy, **settings)
        # At ratio 1 the values meet; the gradients do not, since TRL differentiates the ratio as well.
        assert_same(mine[0], other[0])
        assert_differ(mine[1], other[1], 1e-9)
    assert differing > 0.6 * BATCHES


@pytest.mark.parametrize("sampler_known", [True, False])
def test_off_policy_sequence_mask_equals_trl_which_falls_back_to_pi_old(sampler_known: bool) -> None:
    algo = with_correction(method("grpo"), kind="opsm", high=0.1)
    settings = {"loss_type": "grpo", "off_policy_mask_threshold": 0.1, **CLIP_HIGHER}
    differing = 0
    for batch in random_batches():
        given = inputs(batch)
        assert batch.old_logp is not None
        known = batch
        if sampler_known:
            given["sampling_per_token_logps"] = batch.rollout_logp
        else:
            known = replace(batch, rollout_logp=batch.old_logp)
        other = loss(trainer(**settings), batch, given)
        assert_both_same(ours(known, algo), other)
        differing += int(not torch.allclose(ours(batch, algo)[1], other[1]))
    assert (differing == 0) == sampler_known


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "gspo", "sapo"])
def test_empty_rows_count_in_sequence_means_of_trl(name: str) -> None:
    algo = sapo_in_float32() if name == "sapo" else method(name, max_response_length=HORIZON)
    settings = {"loss_type": "sapo"} if name == "sapo" else NAMED[name]
    for seed in SEEDS:
        batch = without_row(random_batch(seed, 16, 24))
        value, slope = theirs(batch, **settings)
        assert_both_same(ours(batch, algo), (value * 16 / 15, slope * 16 / 15))


def test_an_empty_row_adds_its_advantage_to_the_geometric_mean_loss_of_trl() -> None:
    for seed in SEEDS:
        batch = without_row(random_batch(seed, 16, 24))
        value, slope = theirs(batch, **NAMED["gmpo"])
        constant = -batch.advantages[0] / 16
        assert_both_same(ours(batch, method("gmpo")), ((value - constant) * 16 / 15, slope * 16 / 15))


@pytest.mark.parametrize("name", ["dapo", "cispo"])
def test_empty_rows_count_in_no_token_mean(name: str) -> None:
    for seed in SEEDS:
        batch = without_row(random_batch(seed, 16, 24))
        assert_both_same(ours(batch, method(name)), theirs(batch, **NAMED[name]))


def in_two(batch: TokenBatch, loss_type: str) -> torch.Tensor:
    """The sum of the losses of two micro-batches under accumulation, with the token count of both."""
    made = trainer(loss_type=loss_type, micro_batches=2, **CLIP_HIGHER)
    tokens, half = batch.response_mask.sum(), len(batch.response_mask) // 2
    total = torch.zeros((), dtype=torch.float64)
    for rows in (slice(None, half), slice(half, None)):
        part = batch.rows(rows)
        total += loss(made, part, inputs(part, tokens))[0]
    return total


def test_micro_batches_change_bnpo_and_nothing_else() -> None:
    differing = 0
    for batch in random_batches():
        algo = method("dapo")
        mine = ours(batch, algo)[0]
        assert_same(mine, in_two(batch, "dapo"))
        differing += int(not torch.allclose(mine, in_two(batch, "bnpo")))
        even = replace(batch, response_mask=batch.response_mask[:1].expand_as(batch.response_mask))
        # Micro-batches of equal token counts have one mean.
        assert_same(ours(even, algo)[0], in_two(even, "bnpo"))
    assert differing > 0.6 * BATCHES


def test_log_ratios_are_not_clamped_in_trl_and_at_20_here() -> None:
    algo = method("grpo")
    for shift, agree in ((18.0, True), (25.0, False)):
        batch = random_batch(0, 8, 12)
        assert batch.old_logp is not None
        moved = replace(
            batch,
            logp=(batch.old_logp + shift).requires_grad_(),
            advantages=-torch.ones(8, dtype=torch.float64),
        )
        mine, other = ours(moved, algo), theirs(moved, **NAMED["grpo"])
        if agree:
            assert_both_same(mine, other)
        else:
            assert mine[0].log().item() == pytest.approx(20)
            assert other[0].log().item() == pytest.approx(25)
            assert (mine[1] == 0).all()
            assert (other[1] != 0).any()


def test_reported_clip_ratio_is_the_lab_s_masked_share() -> None:
    for batch in random_batches(FEW):
        theirs(batch, **NAMED["dapo"])
        masked = token_objective(batch, method("dapo")).masked
        share = float(masked.sum() / batch.response_mask.sum())
        assert last_metric("clip_ratio/region_mean", **NAMED["dapo"]) == pytest.approx(share, abs=1e-6)

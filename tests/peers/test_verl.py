"""Loss and gradient equal verl's registered losses where both mean the same; where not, the difference is
stated."""

from dataclasses import replace
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.verl
core = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed: make test-verl")
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
from verl_losses import AGGREGATIONS, NEVER, call, clip, config, metrics, theirs  # noqa: E402

from cppo_lab.objectives import TokenBatch, method, token_objective  # noqa: E402
from cppo_lab.objectives.regularisers import kl_estimate  # noqa: E402
from cppo_lab.objectives.spec import (  # noqa: E402
    AlgoSpec,
    CorrectionSpec,
    RegulariserSpec,
    SelectionSpec,
    SurrogateSpec,
)

NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("vanilla", clip(0.2, 0.2)),
    "grpo": ("vanilla", clip(0.2, 0.28)),
    "dapo": ("vanilla", clip(0.2, 0.28)),
    "dr_grpo": ("vanilla", clip(0.2, 0.2)),
    "reinforce_pp": ("vanilla", clip(0.2, 0.2)),
    "reinforce_pp_baseline": ("vanilla", clip(0.2, 0.2)),
    "cispo": ("cispo", clip(1.0, 0.28)),
    "gspo": ("gspo", clip(3e-4, 4e-4)),
    "gmpo": ("geo_mean", clip(0.4, 0.4)),
    "sapo": ("sapo", {"tau_pos": 1.0, "tau_neg": 1.05}),
    "reinforce": ("gpg", {}),
    "rloo": ("gpg", {}),
}
"""Named methods as verl's losses under verl's keys, each under its own aggregation."""
ELSEWHERE = {"dppo_tv", "dppo_kl", "dro", "clip_cov", "kl_cov", "bypass_mode"}
"""Losses of verl that the tests below compare one by one."""


def uncapped(algo: AlgoSpec) -> AlgoSpec:
    """The method in the form -A sg[rho] log pi, whose loss value verl's DPPO also has."""
    return algo.replace(surrogate=SurrogateSpec(kind="truncated", ratio_high=NEVER))


def kept(batch: TokenBatch, name: str, **options: Any) -> torch.Tensor:
    """The tokens that keep a gradient under one of verl's losses."""
    return theirs(name, batch, **options)[1] != 0


def test_every_registered_loss_is_compared_or_known_to_be_absent_from_the_lab() -> None:
    compared = {name for name, _ in NAMED.values()} | ELSEWHERE
    assert set(core.POLICY_LOSS_REGISTRY) == compared


@pytest.mark.parametrize("name", NAMED)
def test_named_method_equals_verl(name: str) -> None:
    loss, fields = NAMED[name]
    algo = method(name, max_response_length=HORIZON)
    for batch in random_batches():
        other = theirs(loss, batch, algo.aggregation.kind, actor=config(**fields))
        assert_both_same(ours(batch, algo), other)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", ["ppo", "cispo", "gspo", "reinforce"])
def test_aggregations_equal_verl(name: str, aggregation: str) -> None:
    loss, fields = NAMED[name]
    algo = with_aggregation(method(name), aggregation)
    for batch in random_batches():
        assert_both_same(ours(batch, algo), theirs(loss, batch, aggregation, actor=config(**fields)))


@pytest.mark.parametrize(("name", "delta"), [("dppo_tv", 0.15), ("dppo_kl", 0.05)])
def test_dppo_equals_verl_in_gradient_and_in_its_own_form_also_in_value(name: str, delta: float) -> None:
    algo, actor = method(name), config(**clip(delta, delta))
    different = 0
    for batch in random_batches():
        other = theirs(name, batch, anchor="rollout", actor=actor)
        loss, gradient = ours(batch, algo)
        assert_same(gradient, other[1])
        assert_both_same(ours(batch, uncapped(algo)), other)
        different += int(not torch.allclose(loss, other[0]))
    assert different > 0.6 * BATCHES, "-A rho and -A sg[rho] log pi have one gradient and two values"


def dro(beta: float, anchor: str) -> AlgoSpec:
    penalty = RegulariserSpec(anchor_coefficient=beta / 2)
    return method("dro").replace(anchor=anchor, force_anchor=True, regulariser=penalty)


@pytest.mark.parametrize("anchor", ["old", "rollout"])
@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_dro_equals_verl(beta: float, anchor: str) -> None:
    from verl.workers.config import PolicyLossConfig

    actor = config(policy_loss=PolicyLossConfig(loss_mode="dro", dro_beta=beta))
    for batch in random_batches():
        assert_both_same(ours(batch, dro(beta, anchor)), theirs("dro", batch, anchor=anchor, actor=actor))


def without_equal_covariances(batch: TokenBatch) -> TokenBatch:
    """The batch with log-probabilities that are all different."""
    jitter = torch.rand(batch.logp.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keys = torch.rand(batch.logp.shape, generator=torch.Generator().manual_seed(1))
    return replace(batch, logp=(batch.logp.detach() - 1e-3 * jitter).requires_grad_(), selection_order=keys)


def test_clip_cov_equals_verl_where_every_candidate_is_drawn() -> None:
    from verl.workers.config import PolicyLossConfig

    actor = config(policy_loss=PolicyLossConfig(loss_mode="clip_cov", clip_cov_ratio=1.0), **clip(0.2, 0.2))
    algo = method("clip_cov")
    algo = algo.replace(selection=algo.selection.replace(covariance_share=1.0))
    dropped = 0
    for batch in map(without_equal_covariances, random_batches()):
        assert_both_same(ours(batch, algo), theirs("clip_cov", batch, actor=actor))
        plain = algo.replace(selection=SelectionSpec())
        dropped += int((ours(batch, algo)[1] != ours(batch, plain)[1]).sum())
    assert dropped > BATCHES, "tokens are drawn"


@pytest.mark.parametrize("share", [2e-4, 0.1])
def test_kl_cov_equals_verl(share: float) -> None:
    from verl.workers.config import PolicyLossConfig

    policy = PolicyLossConfig(loss_mode="kl_cov", kl_cov_ratio=share, ppo_kl_coef=0.1)
    algo = method("kl_cov")
    algo = algo.replace(selection=algo.selection.replace(covariance_share=share))
    for batch in map(without_equal_covariances, random_batches()):
        assert_both_same(ours(batch, algo), theirs("kl_cov", batch, actor=config(policy_loss=policy)))


def test_verl_weighs_the_penalty_of_dro_by_its_correction_too() -> None:
    from verl.workers.config import PolicyLossConfig

    actor = config(policy_loss=PolicyLossConfig(loss_mode="dro", dro_beta=0.05))
    algo = dro(0.05, "old").replace(correction=CorrectionSpec(kind="token_tis", high=2.0))
    differing = 0
    for batch in random_batches(FEW):
        objective = token_objective(batch, algo)
        assert objective.correction is not None
        other = theirs("dro", batch, actor=actor, weights=objective.correction)
        differing += int(not torch.allclose(ours(batch, algo)[1], other[1]))
    assert differing == len(random_batches(FEW))


def test_capped_dppo_equals_verl_under_its_default_cap() -> None:
    algo = method("dppo_tv").replace(surrogate=SurrogateSpec(kind="truncated", ratio_high=3.0))
    actor = config(clip_ratio_low=0.15, clip_ratio_high=0.15)
    differs = 0
    for batch in random_batches():
        other = theirs("dppo_tv", batch, anchor="rollout", actor=actor)
        assert_both_same(ours(batch, algo), other)
        differs += int(not torch.allclose(ours(batch, method("dppo_tv"))[1], other[1]))
    assert differs > 0.3 * BATCHES, "the cap of 3 that nobody set changes the gradient"


def test_verl_clips_twice_unless_told_otherwise() -> None:
    algo = method("ppo")
    dual = with_region(algo, dual_clip=3.0)
    differs = 0
    for batch in random_batches():
        other = theirs("vanilla", batch, actor=config())
        assert_both_same(ours(batch, dual), other)
        differs += int(not torch.allclose(ours(batch, algo)[0], other[0]))
    assert differs > 0.3 * BATCHES, "PPO's paper has no dual clip"


def test_verl_anchors_dppo_at_whatever_old_log_prob_holds() -> None:
    actor = config(**clip(0.15, 0.15))
    algo = method("dppo_tv")
    forced = algo.replace(anchor="old", force_anchor=True)
    flipped = 0
    for batch in random_batches():
        recomputed = theirs("dppo_tv", batch, anchor="old", actor=actor)
        assert_same(ours(batch, forced)[1], recomputed[1])
        assert_same(ours(batch, algo)[1], theirs("dppo_tv", batch, anchor="rollout", actor=actor)[1])
        flipped += int(((recomputed[1] != 0) != (ours(batch, algo)[1] != 0)).sum())
    assert flipped > 3 * BATCHES, "decisions differ between the two anchors"


def test_binary_kl_differs_only_where_verl_adds_1e_8_to_one_minus_p() -> None:
    algo = method("dppo_kl")
    different = 0

    def divergence(batch: TokenBatch, epsilon: float) -> torch.Tensor:
        mu, pi = batch.rollout_logp.exp(), batch.logp.detach().exp()
        rest = torch.log((1 - mu + epsilon) / (1 - pi + epsilon))
        return mu * (batch.rollout_logp - batch.logp.detach()) + (1 - mu) * rest

    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        spread = torch.rand(2, 256, 48, generator=generator, dtype=torch.float64)
        batch = replace(
            random_batch(seed, 256, 48),
            rollout_logp=torch.log1p(-(0.002 + 0.008 * spread[0])),
            logp=torch.log1p(-(10 ** (-7 + 2 * spread[1]))).requires_grad_(),
        )
        objective = token_objective(batch, algo)
        assert objective.divergence is not None
        inside = batch.response_mask
        assert_same(objective.divergence[inside], divergence(batch, 0.0)[inside], 1e-9)
        mine = objective.gate * objective.advantages != 0
        other = kept(batch, "dppo_kl", anchor="rollout", actor=config(**clip(0.05, 0.05)))
        odd = inside & (mine != other)
        explained = (divergence(batch, 0.0) <= 0.05) != (divergence(batch, 1e-8) <= 0.05)
        away = inside & (batch.advantages > 0).unsqueeze(-1)
        assert torch.equal(odd, explained & away)
        different += int(odd.sum())
    assert different > 20, "the epsilon decides tokens"


def test_masked_share_counts_zero_advantages_in_verl_and_not_here() -> None:
    algo = method("dppo_tv")
    more = 0
    for batch in random_batches(FEW):
        actor = config(**clip(0.15, 0.15))
        tokens = batch.response_mask.sum()
        mine = float(token_objective(batch, algo).masked.sum() / tokens)
        reported = metrics("dppo_tv", batch, anchor="rollout", actor=actor)["actor/pg_clipfrac"]
        more += int(reported > mine + 1e-6)
        assert reported >= mine - 1e-6
        nonzero = replace(batch, advantages=torch.where(batch.advantages == 0, 1.0, batch.advantages))
        mine = float(token_objective(nonzero, algo).masked.sum() / tokens)
        reported = metrics("dppo_tv", nonzero, anchor="rollout", actor=actor)["actor/pg_clipfrac"]
        assert reported == pytest.approx(mine, abs=1e-6)
    assert more > 10


def test_cispo_bounds_are_distances_from_one_in_verl_and_absolute_here() -> None:
    algo = method("cispo")
    floored = algo.replace(surrogate=SurrogateSpec(kind="truncated", ratio_low=0.8, ratio_high=1.2))
    for batch in random_batches():
        bare = theirs("cispo", batch, actor=config())
        assert_both_same(ours(batch, floored), bare)
        low = (batch.logp < batch.old_logp - 0.5) & batch.response_mask
        if bool(low.any()):
            assert_differ(ours(batch, algo)[1], bare[1], 1e-6)


def test_sapo_is_a_sequence_mean_in_verl_whatever_is_configured() -> None:
    algo = method("sapo")
    for batch in random_batches():
        configured = theirs("sapo", batch, "token_mean")
        assert_both_same(ours(batch, algo), configured)
        if batch.logp.shape[1] > 1:
            assert_differ(ours(batch, with_aggregation(algo, "token_mean"))[0], configured[0], 1e-6)


def test_gspo_stops_at_a_ratio_of_e_to_the_10_in_verl_and_20_here() -> None:
    batch = random_batch(0, 8, 12)
    algo = method("gspo")
    for shift, agree in ((8.0, True), (15.0, False)):
        moved = replace(
            batch,
            logp=(batch.old_logp + shift).requires_grad_(),
            advantages=-torch.ones(8, dtype=torch.float64),
        )
        other = theirs("gspo", moved, "sequence_mean_token_mean", actor=config(**clip(3e-4, 4e-4)))
        mine = ours(moved, algo)
        assert mine[0].item() == pytest.approx(torch.tensor(shift).double().exp().item())
        if agree:
            assert_both_same(mine, other)
        else:
            assert other[0].item() == pytest.approx(torch.tensor(10.0).double().exp().item())
            assert (other[1] == 0).all()
            assert (mine[1] != 0).any()


def test_geometric_mean_counts_empty_rows_in_verl() -> None:
    for seed in SEEDS:
        batch = without_row(random_batch(seed, 16, 24))
        loss, gradient = theirs("geo_mean", batch, actor=config(**clip(0.4, 0.4)))
        assert_both_same(ours(batch, method("gmpo")), (loss * 16 / 15, gradient * 16 / 15))


def test_empty_rows_count_in_verl_once_the_global_batch_size_is_passed() -> None:
    algo = with_aggregation(method("ppo"), "sequence_mean_token_mean")
    for seed in SEEDS:
        batch = without_row(random_batch(seed, 16, 24))
        mine = ours(batch, algo)
        assert_both_same(
            mine, theirs("vanilla", batch, algo.aggregation.kind, actor=config(**clip(0.2, 0.2)))
        )
        actor = config(**clip(0.2, 0.2))
        actor.global_batch_info.update(global_batch_size=16)
        loss, gradient = theirs("vanilla", batch, algo.aggregation.kind, actor=actor)
        assert_both_same(mine, (loss * 16 / 15, gradient * 16 / 15))


def test_the_fixed_horizon_is_the_padded_width_in_verl_unless_set() -> None:
    algo = method("dr_grpo", max_response_length=HORIZON)
    kind = algo.aggregation.kind
    for batch in random_batches():
        width = batch.logp.shape[1]
        unset = theirs("vanilla", batch, kind, actor=config(None, **clip(0.2, 0.2)))
        loss, gradient = ours(batch, algo)
        assert_both_same((loss * HORIZON / width, gradient * HORIZON / width), unset)
        assert_both_same((loss, gradient), theirs("vanilla", batch, kind, actor=config(**clip(0.2, 0.2))))


def test_row_means_divide_by_length_plus_1e_8_in_verl_when_the_mask_is_float64() -> None:
    algo = method("sapo")
    for batch in random_batches():
        wide = batch.response_mask.double()
        loss, gradient = theirs("sapo", batch, mask=wide)
        lengths = wide.sum(-1)
        tokens = token_objective(batch, algo).loss.detach().sum(-1)
        assert_same((tokens / (lengths + 1e-8)).mean(), loss, 1e-13)
        assert_same(ours(batch, algo)[1], gradient, 1e-7)
        assert_both_same(ours(batch, algo), theirs("sapo", batch))


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates_equal_verl_below_its_cap_of_ten(kind: str) -> None:
    for batch in random_batches():
        assert batch.reference_logp is not None
        inside = batch.response_mask & ((batch.reference_logp - batch.logp).abs() < 2)
        mine = kl_estimate(kind, batch.logp, batch.reference_logp)
        other = core.kl_penalty(batch.logp, batch.reference_logp, kind)
        assert_same(mine[inside], other[inside])
        gradients = [torch.autograd.grad(value[inside].sum(), batch.logp)[0] for value in (mine, other)]
        assert_same(*gradients)


def test_k3_is_cut_at_ten_in_verl_and_its_plus_form_has_the_gradient_of_k2() -> None:
    logp = torch.tensor([-6.0, -1.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.0, -1.5], dtype=torch.float64)
    far = kl_estimate("k3", logp, reference)
    assert far[0].item() == pytest.approx(torch.tensor(5.0).double().exp().item() - 6)
    cut = core.kl_penalty(logp, reference, "k3")
    assert cut[0].item() == 10
    assert torch.autograd.grad(cut[0], logp)[0][0] == 0
    plus = core.kl_penalty(logp, reference, "k3+")[1]
    assert_same(plus.detach(), far[1].detach())
    assert_same(
        torch.autograd.grad(plus, logp)[0],
        torch.autograd.grad(kl_estimate("k2", logp, reference)[1], logp)[0],
    )


def test_reported_clip_fractions_mean_the_lab_s_masked_shares() -> None:
    plain, dual = method("ppo"), with_region(method("ppo"), dual_clip=3.0)
    for batch in random_batches(FEW):
        reported = metrics("vanilla", batch, actor=config())
        tokens = batch.response_mask.sum()
        low_high = float(token_objective(batch, plain).masked.sum() / tokens)
        both = float(token_objective(batch, dual).masked.sum() / tokens)
        assert reported["actor/pg_clipfrac"] == pytest.approx(low_high, abs=1e-6)
        assert reported["actor/pg_clipfrac_lower"] == pytest.approx(both - low_high, abs=1e-6)


def test_values_outside_the_mask_reach_neither_loss() -> None:
    batch = random_batch(3, 32, 24)
    outside = ~batch.response_mask
    changed = replace(batch, logp=(batch.logp.detach() - 5.0 * outside).requires_grad_())
    for name in ("ppo", "gspo", "gmpo", "cispo"):
        loss, fields = NAMED[name]
        kind = method(name).aggregation.kind
        for values in (batch, changed):
            value, _ = call(loss, values, kind, actor=config(**fields))
            assert_same(ours(values, method(name))[0], value.detach())
        assert_same(ours(batch, method(name))[0], ours(changed, method(name))[0])

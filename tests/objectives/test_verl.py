"""Loss and gradient equal verl's registered losses where both mean the same; where not, the difference is
stated."""

from dataclasses import replace
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.verl
core = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed")
pytest.importorskip("yaml")

import peer_batches  # noqa: E402
from verl.workers.config import ActorConfig  # noqa: E402

from cppo_lab.objectives import TokenBatch, compute_advantages, gae, method, token_objective  # noqa: E402
from cppo_lab.objectives.spec import AdvantageSpec, AggregationSpec, AlgoSpec, SurrogateSpec  # noqa: E402

AGGREGATIONS = {
    "token_mean": "token-mean",
    "sequence_mean_token_mean": "seq-mean-token-mean",
    "sequence_mean_token_sum": "seq-mean-token-sum",
    "sequence_mean_token_sum_norm": "seq-mean-token-sum-norm",
}


def config(**fields: Any) -> ActorConfig:
    actor = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **fields)
    actor.global_batch_info.update(loss_scale_factor=16)
    return actor


def theirs(
    name: str, batch: TokenBatch, aggregation: str, **fields: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    advantages = batch.advantages.unsqueeze(-1).expand(batch.logp.shape)
    loss, _ = core.get_policy_loss_fn(name)(
        old_log_prob=batch.rollout_logp,
        log_prob=batch.logp,
        advantages=advantages,
        response_mask=batch.response_mask.to(batch.logp.dtype),
        loss_agg_mode=AGGREGATIONS[aggregation],
        config=config(**fields),
    )
    return loss.detach(), torch.autograd.grad(loss, batch.logp)[0]


def with_aggregation(algo: AlgoSpec, kind: str) -> AlgoSpec:
    horizon = 16 if kind == "sequence_mean_token_sum_norm" else None
    return replace(algo, aggregation=AggregationSpec(kind=kind, horizon=horizon))


def clip(low: float, high: float, dual: float | None) -> AlgoSpec:
    grpo = method("grpo")
    region = replace(grpo.trust_region, clip_low=low, clip_high=high, dual_clip=dual)
    return replace(grpo, trust_region=region)


def capped_dppo(name: str, delta: float, cap: float) -> AlgoSpec:
    algo = method(name)
    return replace(
        algo,
        trust_region=replace(algo.trust_region, delta=delta),
        surrogate=SurrogateSpec(kind="truncated", ratio_high=cap),
    )


CASES: dict[str, tuple[str, AlgoSpec, dict[str, Any]]] = {
    "ppo with its default dual clip": (
        "vanilla",
        clip(0.2, 0.2, 3.0),
        {"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 3.0},
    ),
    "grpo with clip-higher": (
        "vanilla",
        clip(0.2, 0.28, 1e6),
        {"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 1e6},
    ),
    "dppo_tv": (
        "dppo_tv",
        capped_dppo("dppo_tv", 0.15, 20.0),
        {"clip_ratio": 0.15, "clip_ratio_low": 0.15, "clip_ratio_high": 0.15, "clip_ratio_c": 20.0},
    ),
    "cispo": (
        "cispo",
        method("cispo"),
        {"clip_ratio": 0.2, "clip_ratio_low": 1.0, "clip_ratio_high": 0.28},
    ),
    "gspo": (
        "gspo",
        method("gspo"),
        {"clip_ratio": 0.2, "clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_loss_and_gradient_equal_verl(case: str, aggregation: str) -> None:
    name, algo, fields = CASES[case]
    algo = with_aggregation(algo, aggregation)
    for batch in peer_batches.random_batches(peer_batches.BATCHES // 4):
        ours = peer_batches.loss_and_gradient(batch, algo)
        for mine, other in zip(ours, theirs(name, batch, aggregation, **fields), strict=True):
            # verl adds 1e-8 to the length of a row in its mean of token means.
            torch.testing.assert_close(mine, other, rtol=2e-8, atol=2e-8)


def test_geometric_mean_equals_verl_up_to_its_epsilon() -> None:
    fields = {"clip_ratio": 0.4, "clip_ratio_low": 0.4, "clip_ratio_high": 0.4}
    for batch in peer_batches.random_batches():
        ours = peer_batches.loss_and_gradient(batch, method("gmpo"))
        for mine, other in zip(ours, theirs("geo_mean", batch, "token_mean", **fields), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


def test_sapo_equals_verl() -> None:
    for batch in peer_batches.random_batches():
        ours = peer_batches.loss_and_gradient(batch, method("sapo"))
        other = theirs("sapo", batch, "sequence_mean_token_mean", tau_pos=1.0, tau_neg=1.05)
        for mine, value in zip(ours, other, strict=True):
            torch.testing.assert_close(mine, value, rtol=2e-8, atol=2e-8)


def test_binary_kl_decisions_differ_from_verl_only_near_probability_one() -> None:
    algo = capped_dppo("dppo_kl", 0.05, 20.0)
    fields = {"clip_ratio": 0.05, "clip_ratio_low": 0.05, "clip_ratio_high": 0.05, "clip_ratio_c": 20.0}
    different, tokens = 0, 0
    for batch in peer_batches.random_batches():
        objective = token_objective(batch, algo)
        _, gradient = theirs("dppo_kl", batch, "token_mean", **fields)
        kept = gradient != 0
        odd = batch.response_mask & (kept != ~objective.masked)
        different += int(odd.sum())
        tokens += int(batch.response_mask.sum())
        nearest = torch.minimum(-batch.logp, -batch.rollout_logp).detach()
        assert (nearest[odd] < 1e-2).all(), "verl adds 1e-8 to 1 - p"
    assert different < 1e-3 * tokens


def test_empty_rows_count_in_verl_when_the_global_batch_size_is_passed() -> None:
    (batch,) = peer_batches.random_batches(1)
    empty = replace(batch, response_mask=batch.response_mask & (torch.arange(4) > 0).unsqueeze(-1))
    algo = with_aggregation(clip(0.2, 0.2, 3.0), "sequence_mean_token_mean")
    ours, _ = peer_batches.loss_and_gradient(empty, algo)
    loss = token_objective(empty, algo).loss.detach()
    mask = empty.response_mask.double()
    same = core.agg_loss(loss, mask, "seq-mean-token-mean")
    distributed = core.agg_loss(loss, mask, "seq-mean-token-mean", global_batch_size=4)
    torch.testing.assert_close(same, ours, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(distributed, ours * 3 / 4, rtol=1e-7, atol=1e-9)


def test_group_advantages_equal_verl_and_a_group_of_one_differs() -> None:
    generator = torch.Generator().manual_seed(1)
    rewards = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    token_rewards, mask = rewards.reshape(-1, 1), torch.ones(20, 1, dtype=torch.float64)
    import numpy as np

    index = np.repeat(np.arange(5), 4)
    for spec, normalise in ((AdvantageSpec(), True), (AdvantageSpec(kind="group_centred"), False)):
        other, _ = core.compute_grpo_outcome_advantage(
            token_rewards, mask, index, norm_adv_by_std_in_grpo=normalise
        )
        torch.testing.assert_close(compute_advantages(rewards, spec), other[:, 0], rtol=1e-6, atol=1e-6)
    other, _ = core.compute_rloo_outcome_advantage(token_rewards, mask, index)
    torch.testing.assert_close(
        compute_advantages(rewards, AdvantageSpec(kind="leave_one_out")), other[:, 0], rtol=1e-6, atol=1e-6
    )
    alone, _ = core.compute_grpo_outcome_advantage(torch.tensor([[0.7]]), torch.ones(1, 1), np.array([0]))
    assert alone.item() == pytest.approx(0.7, rel=1e-5)
    assert compute_advantages(torch.tensor([[0.7]]), AdvantageSpec()).item() == 0


def test_gae_equals_verl_before_whitening() -> None:
    generator = torch.Generator().manual_seed(2)
    rewards, values = torch.rand(2, 5, 7, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 7, generator=generator) < 0.8
    mask[:, 0] = True
    _, returns = core.compute_gae_advantage_return(rewards * mask, values, mask.double(), gamma=0.9, lam=0.8)
    _, ours = gae(rewards, values, mask, 0.9, 0.8)
    torch.testing.assert_close(ours[mask], returns[mask], rtol=1e-9, atol=1e-9)

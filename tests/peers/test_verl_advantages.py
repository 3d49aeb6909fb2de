"""Advantages, GAE and the value loss equal verl's where both mean the same; where not, the difference is
stated."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.verl
core = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed: make test-verl")

from peer_batches import SEEDS, assert_differ, assert_same, random_batch, random_batches  # noqa: E402
from torch import Tensor  # noqa: E402
from verl import DataProto  # noqa: E402
from verl.workers.reward_manager import dapo  # noqa: E402

from cppo_lab.objectives import compute_advantages, gae, token_advantages, value_loss  # noqa: E402
from cppo_lab.objectives.advantages import whitened  # noqa: E402
from cppo_lab.objectives.overlong import overlong_penalty  # noqa: E402
from cppo_lab.objectives.spec import AdvantageSpec, OverlongSpec, RegulariserSpec  # noqa: E402

GROUPS, SIZE, WIDTH = 64, 8, 24


def rollout(seed: int) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """Rewards [N, G], their token form [N * G, T] at the last token, the mask [N * G, T] and group names."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(GROUPS, SIZE, generator=generator, dtype=torch.float64)
    rewards[::3] = rewards[::3].round()
    mask = random_batch(seed, GROUPS * SIZE, WIDTH).response_mask
    last = mask & (mask.cumsum(-1) == mask.sum(-1, keepdim=True))
    return rewards, rewards.flatten().unsqueeze(-1) * last, mask, np.repeat(np.arange(GROUPS), SIZE)


@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize(
    ("spec", "normalise"), [(AdvantageSpec(), True), (AdvantageSpec(kind="group_centred"), False)]
)
def test_group_advantages_equal_verl(spec: AdvantageSpec, normalise: bool, vectorised: bool) -> None:
    estimate = core.compute_grpo_outcome_advantage
    if vectorised:
        estimate = core.compute_grpo_vectorized_outcome_advantage
    for seed in SEEDS:
        rewards, token_rewards, mask, index = rollout(seed)
        mine, _ = token_advantages(rewards, mask, spec)
        other, _ = estimate(token_rewards, mask.long(), index, norm_adv_by_std_in_grpo=normalise)
        # The vectorised form adds up groups in float32.
        assert_same(mine, other.double(), 1e-5 if vectorised else 1e-12)


def test_leave_one_out_equals_verl() -> None:
    for seed in SEEDS:
        rewards, token_rewards, mask, index = rollout(seed)
        mine, _ = token_advantages(rewards, mask, AdvantageSpec(kind="leave_one_out"))
        for estimate in (core.compute_rloo_outcome_advantage, core.compute_rloo_vectorized_outcome_advantage):
            assert_same(mine, estimate(token_rewards, mask.long(), index)[0], 1e-12)


def test_gpg_is_group_centred_times_a_factor_that_counts_non_zero_rewards() -> None:
    for seed in SEEDS:
        rewards, token_rewards, mask, index = rollout(seed)
        mine, _ = token_advantages(rewards, mask, AdvantageSpec(kind="group_centred"))
        other, _ = core.compute_gpg_outcome_advantage(token_rewards, mask.long(), index)
        factor = rewards.numel() / rewards.count_nonzero()
        assert factor > 1.05
        assert_same(mine * factor, other, 1e-6)


def test_a_group_of_one_keeps_its_raw_reward_in_verl_and_gets_zero_here() -> None:
    alone, mask = torch.tensor([[0.7]]), torch.ones(1, 1)
    for estimate in (core.compute_grpo_outcome_advantage, core.compute_rloo_outcome_advantage):
        assert estimate(alone, mask, np.array([0]))[0].item() == pytest.approx(0.7, rel=1e-5)
    for kind in ("group_normalised", "leave_one_out"):
        assert compute_advantages(alone, AdvantageSpec(kind=kind)).item() == 0


def test_equal_rewards_leave_a_remainder_in_verl_and_zero_here() -> None:
    equal = torch.full((1, 16), 0.7)
    other, _ = core.compute_grpo_outcome_advantage(
        equal.reshape(-1, 1), torch.ones(16, 1), np.zeros(16, dtype=int)
    )
    assert other.abs().max() > 0.01, "float32 rounding over an epsilon of 1e-6"
    assert (compute_advantages(equal, AdvantageSpec()) == 0).all()
    exact, _ = core.compute_grpo_outcome_advantage(
        torch.ones(16, 1), torch.ones(16, 1), np.zeros(16, dtype=int)
    )
    assert (exact == 0).all(), "rewards whose mean is exact leave none"


def test_gae_returns_and_whitened_advantages_equal_verl() -> None:
    for batch in random_batches():
        mask = batch.response_mask
        generator = torch.Generator().manual_seed(int(mask.sum()))
        rewards, values = torch.rand(2, *mask.shape, generator=generator, dtype=torch.float64)
        rewards = rewards * mask
        advantages, returns = gae(rewards, values, mask, 0.99, 0.95)
        # An integer mask makes verl round the N / (N - 1) of the variance to float32.
        for inside, tolerance in ((mask.long(), 1e-7), (mask.double(), 1e-9)):
            other, other_returns = core.compute_gae_advantage_return(
                rewards, values, inside, gamma=0.99, lam=0.95
            )
            assert_same(returns[mask], other_returns[mask], 1e-12)
            assert_same(whitened(advantages, mask)[mask], other[mask], tolerance)


def test_ppo_s_advantages_equal_verl_from_the_reward_on() -> None:
    spec = AdvantageSpec(kind="gae", gamma=1.0, lam=0.95)
    for seed in SEEDS:
        rewards, token_rewards, mask, _ = rollout(seed)
        values = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        mine, targets = token_advantages(rewards, mask, spec, values=values)
        other, returns = core.compute_gae_advantage_return(
            token_rewards, values, mask.double(), gamma=1.0, lam=0.95
        )
        assert targets is not None
        assert_same(mine[mask], other[mask], 1e-9)
        assert_same(targets[mask], returns[mask], 1e-12)


def test_value_loss_and_its_gradient_equal_verl() -> None:
    for batch in random_batches():
        mask = batch.response_mask
        generator = torch.Generator().manual_seed(int(mask.sum()))
        old, returns, noise = torch.randn(3, *mask.shape, generator=generator, dtype=torch.float64)
        values = (old + 0.4 * noise).requires_grad_()
        mine = (value_loss(values, old, returns, 0.2) * mask).sum() / mask.sum()
        other, _ = core.compute_value_loss(values, returns, old, mask.long(), cliprange_value=0.2)
        assert_same(mine.detach(), other.detach(), 1e-12)
        assert_same(*(torch.autograd.grad(loss, values)[0] for loss in (mine, other)), 1e-12)


@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_pp_whitens_over_tokens_in_verl_and_over_responses_here(baseline: bool) -> None:
    spec = AdvantageSpec(kind="batch_normalised", group_baseline=baseline)

    def estimate(token_rewards: Tensor, mask: Tensor, index: np.ndarray) -> Tensor:
        if baseline:
            return core.compute_reinforce_plus_plus_baseline_outcome_advantage(token_rewards, mask, index)[0]
        discount = SimpleNamespace(gamma=1.0)
        return core.compute_reinforce_plus_plus_outcome_advantage(token_rewards, mask, config=discount)[0]

    for seed in SEEDS:
        rewards, token_rewards, mask, index = rollout(seed)
        mine, _ = token_advantages(rewards, mask, spec)
        assert_differ(mine, estimate(token_rewards, mask.long(), index), 1e-3)
        single = torch.ones(mask.shape[0], 1, dtype=torch.bool)
        mine, _ = token_advantages(rewards, single, spec)
        other = estimate(rewards.reshape(-1, 1), single.double(), index)
        # With one token in each response both whiten over the same numbers.
        assert_same(mine, other, 1e-9)


def test_reinforce_pp_with_kl_in_the_reward_equals_verl() -> None:
    spec = AdvantageSpec(kind="batch_normalised")
    regulariser = RegulariserSpec(kl_coefficient=0.1, kl_kind="k1", kl_where="reward")
    for seed in SEEDS:
        rewards, token_rewards, mask, _ = rollout(seed)
        batch = random_batch(seed, *mask.shape)
        assert batch.old_logp is not None
        assert batch.reference_logp is not None
        kl = core.kl_penalty(batch.old_logp, batch.reference_logp, "k1")
        mine, _ = token_advantages(rewards, mask, spec, kl=kl, regulariser=regulariser)
        shaped = core.compute_rewards(token_rewards, batch.old_logp, batch.reference_logp, 0.1) * mask
        other, _ = core.compute_reinforce_plus_plus_outcome_advantage(
            shaped, mask.double(), config=SimpleNamespace(gamma=1.0)
        )
        assert_same(mine, other, 1e-9)


def test_overlong_penalty_equals_verl_up_to_the_limit_and_goes_on_falling_there() -> None:
    lengths = torch.arange(1, 121)
    buffer = SimpleNamespace(enable=True, len=20, penalty_factor=1.0, log=False)
    manager = dapo.DAPORewardManager(
        tokenizer=SimpleNamespace(decode=lambda tokens, **options: "", eos_token="<eos>"),
        num_examine=0,
        compute_score=lambda **columns: 0.0,
        max_resp_len=100,
        overlong_buffer_cfg=buffer,
    )
    response = torch.arange(120) < lengths.unsqueeze(-1)
    data = DataProto.from_dict(
        tensors={
            "prompts": torch.ones(120, 1, dtype=torch.long),
            "responses": response.long(),
            "attention_mask": torch.cat([torch.ones(120, 1, dtype=torch.bool), response], -1).long(),
        },
        non_tensors={
            "reward_model": np.array([{"ground_truth": ""}] * 120, dtype=object),
            "data_source": np.array(["none"] * 120, dtype=object),
        },
    )
    other = manager(data).sum(-1)
    mine = overlong_penalty(lengths, 100, OverlongSpec(kind="shaping", buffer=20))
    within = lengths <= 100
    assert_same(mine[within], other[within], 1e-6)
    assert (mine[~within] == -1).all()
    assert other[-1].item() == pytest.approx(-2)

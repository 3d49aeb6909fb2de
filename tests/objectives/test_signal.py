"""Advantages, the critic's targets, overlong shaping and schedules."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lab.objectives import TokenBatch, compute_advantages, gae, method, token_advantages, token_objective
from cppo_lab.objectives.advantages import advantages, whitened
from cppo_lab.objectives.critics import value_loss
from cppo_lab.objectives.overlong import overlong_penalty, without_truncated
from cppo_lab.objectives.regularisers import kl_estimate
from cppo_lab.objectives.schedules import ThresholdController, schedule_factor
from cppo_lab.objectives.spec import (
    AdvantageSpec,
    BudgetSpec,
    OverlongSpec,
    RegulariserSpec,
    ScheduleSpec,
    TrustRegionSpec,
)
from cppo_lab.objectives.thresholds import thresholds_at

GROUP_KINDS = advantages.that_need("group")


@pytest.mark.parametrize("kind", GROUP_KINDS)
@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 1e6])
@pytest.mark.parametrize("size", [1, 8, 16])
def test_groups_of_equal_rewards_have_advantage_exactly_zero(kind: str, value: float, size: int) -> None:
    rewards = torch.full((2, size), value)
    assert compute_advantages(rewards, AdvantageSpec(kind=kind)).tolist() == [0.0] * (2 * size)


@settings(max_examples=50)
@given(st.integers(0, 2**31 - 1), st.sampled_from(GROUP_KINDS))
def test_group_advantages_have_their_middle_at_zero_and_ignore_a_shift(seed: int, kind: str) -> None:
    rewards = torch.rand(3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spec = AdvantageSpec(kind=kind)
    advantages = compute_advantages(rewards, spec).view(3, 5)
    middle = advantages.median(-1).values if kind == "group_median" else advantages.sum(-1)
    torch.testing.assert_close(middle, torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        compute_advantages(rewards + 3, spec).view(3, 5), advantages, atol=1e-6, rtol=1e-6
    )


def test_leave_one_out_subtracts_the_mean_of_the_others() -> None:
    rewards = torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    others = (rewards.sum(-1, keepdim=True) - rewards) / 5
    found = compute_advantages(rewards, AdvantageSpec(kind="leave_one_out")).view(4, 6)
    torch.testing.assert_close(found, rewards - others)


def test_batch_normalised_whitens_over_all_responses() -> None:
    rewards = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    found = compute_advantages(rewards, AdvantageSpec(kind="batch_normalised"))
    torch.testing.assert_close(
        found, (rewards.flatten() - 0.75) / rewards.std().add(1e-12), atol=1e-6, rtol=1e-6
    )
    baseline = compute_advantages(rewards, AdvantageSpec(kind="batch_normalised", group_baseline=True))
    assert baseline[0] == -baseline[1]
    assert baseline[2] == baseline[3]


def test_rewards_must_come_in_groups() -> None:
    with pytest.raises(ValueError, match=r"rewards has shape \(4,\): must be \[N prompts, G responses\]"):
        compute_advantages(torch.ones(4), AdvantageSpec())


def plain_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    out, running, following = [], 0.0, 0.0
    for reward, value in zip(reversed(rewards), reversed(values), strict=True):
        running = reward + gamma * following - value + gamma * lam * running
        following = value
        out.append(running)
    return out[::-1]


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1), st.floats(0, 1), st.floats(0, 1))
def test_gae_equals_a_plain_loop_over_the_response_tokens(seed: int, gamma: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.rand(2, 4, 9, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 9, generator=generator) < 0.7
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for row in range(4):
        chosen = mask[row]
        want = plain_gae(rewards[row][chosen].tolist(), values[row][chosen].tolist(), gamma, lam)
        assert advantages[row][chosen].tolist() == pytest.approx(want, abs=1e-12)
        assert advantages[row][~chosen].abs().sum() == 0
    torch.testing.assert_close(returns, (advantages + values) * mask)


def test_the_reward_sits_on_the_last_response_token_and_empty_rows_earn_nothing() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False]])
    spec = AdvantageSpec(kind="gae", whiten=False)
    advantages, returns = token_advantages(
        torch.tensor([[1.0, 5.0]]), mask, spec, values=torch.tensor([[0.2, 0.5, 9.0]] * 2)
    )
    torch.testing.assert_close(advantages, torch.tensor([[0.8, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="needs values"):
        token_advantages(torch.ones(1, 2), mask, spec)


def test_whitening_uses_response_tokens_only() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.tensor([[1.0, 2.0, 1e9], [6.0, 1e9, 1e9]])
    found = whitened(values, mask)
    chosen = torch.tensor([1.0, 2.0, 6.0])
    torch.testing.assert_close(found[mask], (chosen - 3) / chosen.std())
    assert found[~mask].abs().sum() == 0
    assert whitened(torch.full((2, 3), 0.7), torch.ones(2, 3) > 0).tolist() == [[0.0] * 3] * 2


def test_kl_in_the_reward_lowers_the_reward_by_its_sum_or_per_token() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    kl = torch.tensor([[0.5, 1.0], [2.0, 99.0]])
    regulariser = RegulariserSpec(kl_coefficient=0.1, kl_where="reward", kl_kind="k1")
    rewards = torch.tensor([[1.0, 0.0]])
    centred, _ = token_advantages(
        rewards, mask, AdvantageSpec(kind="group_centred"), kl=kl, regulariser=regulariser
    )
    torch.testing.assert_close(centred, torch.tensor([[0.525, 0.525], [-0.525, 0.0]]))
    spec = AdvantageSpec(kind="gae", whiten=False)
    _, returns = token_advantages(
        rewards, mask, spec, values=torch.zeros(2, 2), kl=kl, regulariser=regulariser
    )
    torch.testing.assert_close(returns, torch.tensor([[0.85, 0.9], [-0.2, 0.0]]))
    to_go, _ = token_advantages(
        rewards, mask, AdvantageSpec(kind="batch_normalised"), kl=kl, regulariser=regulariser
    )
    want = whitened(torch.tensor([[0.85, 0.9], [-0.2, 0.0]]), mask)
    torch.testing.assert_close(to_go, want)


def test_value_loss_without_clip_is_half_the_squared_error() -> None:
    values, old, returns = torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.5]])
    assert value_loss(values, old, returns, None).item() == pytest.approx(0.125)
    assert value_loss(values, old, returns, 0.2).item() == pytest.approx(0.5 * 1.3**2)


def test_overlong_penalty_equals_its_vector() -> None:
    lengths = torch.tensor([100, 16384, 16385, 18432, 20480, 20481])
    want = [0.0, 0.0, -0.000244140625, -0.5, -1.0, -1.0]
    for buffer in (4096, 0.2):
        found = overlong_penalty(lengths, 20480, OverlongSpec(kind="shaping", buffer=buffer))
        assert found.tolist() == pytest.approx(want, abs=1e-9)
    assert overlong_penalty(lengths, 20480, OverlongSpec()).abs().sum() == 0
    with pytest.raises(ValueError, match=r"overlong\.buffer = 64: must not exceed .* 32"):
        overlong_penalty(lengths, 32, OverlongSpec(kind="shaping", buffer=64))


def test_overlong_filtering_empties_truncated_rows_only_when_asked() -> None:
    mask, truncated = torch.ones(2, 3) > 0, torch.tensor([True, False])
    assert without_truncated(mask, truncated, OverlongSpec(kind="filtering")).sum(-1).tolist() == [0, 3]
    assert without_truncated(mask, truncated, OverlongSpec()).all()


@pytest.mark.parametrize(
    ("spec", "at", "factor"),
    [
        (ScheduleSpec(), {"step": 9, "progress": 0.9}, 1.0),
        (ScheduleSpec(kind="linear", final=0.5), {"step": 0, "progress": 0.5}, 0.75),
        (ScheduleSpec(kind="linear", final=0.5, steps=10), {"step": 5, "progress": 0.0}, 0.75),
        (ScheduleSpec(kind="linear", final=0.5, steps=10), {"step": 50, "progress": 0.0}, 0.5),
        (ScheduleSpec(kind="cosine", final=3.0), {"step": 0, "progress": 0.5}, 2.0),
        (ScheduleSpec(kind="cosine", final=3.0), {"step": 0, "progress": 0.25}, 2 - math.cos(math.pi / 4)),
        (ScheduleSpec(kind="piecewise", points=((2, 1.0), (4, 3.0))), {"step": 0, "progress": 0.0}, 1.0),
        (ScheduleSpec(kind="piecewise", points=((2, 1.0), (4, 3.0))), {"step": 3, "progress": 0.0}, 2.0),
        (ScheduleSpec(kind="piecewise", points=((2, 1.0), (4, 3.0))), {"step": 9, "progress": 0.0}, 3.0),
        (ScheduleSpec(kind="target_share"), {"step": 9, "progress": 0.9, "controller": 1.7}, 1.7),
    ],
)
def test_schedules_give_their_factor(spec: ScheduleSpec, at: dict[str, float], factor: float) -> None:
    assert schedule_factor(spec, **at) == pytest.approx(factor)


def test_scheduled_thresholds_reach_the_rule_and_relative_budgets_follow_delta() -> None:
    halving = ScheduleSpec(kind="linear", final=0.5)
    region = TrustRegionSpec(
        kind="prefix_budget",
        delta=0.2,
        schedule=halving,
        budget=BudgetSpec(kind="adaptive", size=0.1, relative=True, ceiling=3.0),
    )
    at = thresholds_at(region, progress=1.0)
    assert (at.delta, at.budget) == pytest.approx((0.1, 0.01))


def test_the_objective_applies_the_thresholds_of_its_step() -> None:
    plain = method("dppo_tv")
    shrinking = ScheduleSpec(kind="linear", final=0.5, steps=10)
    algo = plain.replace(trust_region=plain.trust_region.replace(schedule=shrinking))
    # pi - mu is 0.1: inside delta = 0.15 at the start, outside half of it at step 10.
    batch = TokenBatch(
        torch.tensor([[0.6]]).log().requires_grad_(),
        torch.tensor([[0.5]]).log(),
        torch.ones(1),
        torch.ones(1, 1) > 0,
    )
    assert not token_objective(batch, algo, step=0).masked.any()
    assert token_objective(batch, algo, step=10).masked.all()
    assert token_objective(batch, algo, step=10).thresholds.delta == pytest.approx(0.075)


def test_the_controller_brings_the_masked_share_to_its_target() -> None:
    spec = ScheduleSpec(kind="target_share", target_share=0.1, rate=0.2)
    controller = ThresholdController(spec)
    share = 1.0
    for _ in range(200):
        share = 0.4 / (1 + controller.factor)
        controller.update(share)
    assert share == pytest.approx(0.1, rel=0.02)
    resumed = ThresholdController(spec)
    resumed.load_state_dict(controller.state_dict())
    assert resumed.update(0.3) == controller.update(0.3)
    before = controller.factor
    assert controller.update(math.nan) == before


def test_kl_estimates_agree_near_zero_and_k3_is_never_negative() -> None:
    reference = torch.zeros(101, dtype=torch.float64)
    logp = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
    assert (kl_estimate("k3", logp, reference) >= 0).all()
    torch.testing.assert_close(kl_estimate("k1", logp, reference), logp)
    small = logp.abs() < 0.02
    torch.testing.assert_close(
        kl_estimate("k2", logp, reference)[small],
        kl_estimate("k3", logp, reference)[small],
        atol=2e-6,
        rtol=0,
    )


def test_regularisers_add_to_the_loss_with_their_gradient() -> None:
    plain = method("pg")
    both = plain.replace(
        regulariser=RegulariserSpec(kl_coefficient=0.5, kl_kind="k2", entropy_coefficient=0.1)
    )
    logp = torch.tensor([[-1.0, -2.0]]).requires_grad_()
    entropy = torch.tensor([[0.7, 0.3]]).requires_grad_()
    batch = TokenBatch(
        logp,
        logp.detach(),
        torch.zeros(1),
        torch.tensor([[True, False]]),
        reference_logp=torch.tensor([[-1.5, -9.0]]),
        entropy=entropy,
    )
    objective = token_objective(batch, both)
    torch.testing.assert_close(objective.loss, torch.tensor([[0.5 * 0.125 - 0.07, 0.0]]))
    objective.loss.sum().backward()
    torch.testing.assert_close(logp.grad, torch.tensor([[0.25, 0.0]]))
    torch.testing.assert_close(entropy.grad, torch.tensor([[-0.1, 0.0]]))
    with pytest.raises(ValueError, match="reference_logp"):
        token_objective(replace(batch, reference_logp=None), both)
    assert token_objective(batch, plain).regulariser is None

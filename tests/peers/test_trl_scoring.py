"""TRL's scoring of rollouts against the lab: group advantages, and importance ratios of pi_old to mu."""

import math
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
    SEEDS,
    assert_both_same,
    assert_differ,
    assert_same,
    ours,
    random_batch,
    random_batches,
)
from torch import Tensor  # noqa: E402
from trl_trainers import GROUP, loss, scored, trainer  # noqa: E402

from cppo_lab.objectives import TokenBatch, compute_advantages, method, token_objective  # noqa: E402
from cppo_lab.objectives.log_ratios import MAX_LOG_RATIO  # noqa: E402
from cppo_lab.objectives.spec import AdvantageSpec, CorrectionSpec  # noqa: E402

RATIOS: dict[str, tuple[CorrectionSpec, dict[str, Any]]] = {
    "token_truncate": (
        CorrectionSpec(kind="token_tis", high=2.0),
        {"vllm_importance_sampling_clip_max": 2.0},
    ),
    "sequence_truncate": (
        CorrectionSpec(kind="sequence_tis", high=2.0),
        {"vllm_importance_sampling_clip_max": 2.0},
    ),
    "token_mask": (
        CorrectionSpec(kind="icepop", low=0.5, high=5.0),
        {"vllm_importance_sampling_clip_min": 0.5, "vllm_importance_sampling_clip_max": 5.0},
    ),
    "sequence_mask": (CorrectionSpec(kind="mis", high=3.0), {}),
}


def grouped_rewards(seed: int, groups: int) -> Tensor:
    """Rewards [N, G] that float32 holds exactly; some groups agree."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 17, (groups, GROUP), generator=generator) / 16
    rewards[::4] = rewards[::4, :1]
    return rewards


@pytest.mark.parametrize("mode", RATIOS)
def test_importance_ratios_and_the_loss_under_them_equal_trl(mode: str) -> None:
    spec, fields = RATIOS[mode]
    algo = method("grpo").replace(correction=spec)
    settings = {
        "loss_type": "grpo",
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "vllm_importance_sampling_mode": mode,
        **fields,
    }
    below = 0
    for batch in random_batches():
        # TRL holds the sampler's log-probabilities in float32.
        batch = replace(batch, rollout_logp=batch.rollout_logp.float().double())
        given = scored(batch, grouped_rewards(0, len(batch.logp) // GROUP), vllm=True, **settings)
        width = given["completion_mask"].shape[1]
        batch = _narrowed(batch, width)
        given["advantages"] = batch.advantages
        factor = token_objective(batch, algo).correction
        assert factor is not None
        ratio = given["importance_sampling_ratio"]
        # A product of ratios below e^-20 stops there in the lab and nowhere in TRL.
        stopped = torch.where(ratio > 0, ratio.clamp(min=math.exp(-MAX_LOG_RATIO)), ratio)
        below += int((stopped != ratio).sum())
        given["importance_sampling_ratio"] = stopped
        assert_same(factor, stopped * batch.response_mask)
        assert torch.equal(given["tool_mask"] * given["completion_mask"] > 0, batch.response_mask)
        assert_both_same(ours(batch, algo), loss(trainer(**settings), batch, given))
    assert (below > 0) == mode.startswith("sequence")


def _narrowed(batch: TokenBatch, width: int) -> TokenBatch:
    """The batch without the columns that no response reaches."""
    assert batch.old_logp is not None
    assert batch.reference_logp is not None
    return TokenBatch(
        logp=batch.logp.detach()[:, :width].clone().requires_grad_(),
        rollout_logp=batch.rollout_logp[:, :width],
        advantages=batch.advantages,
        response_mask=batch.response_mask[:, :width],
        old_logp=batch.old_logp[:, :width],
        reference_logp=batch.reference_logp[:, :width],
    )


@pytest.mark.parametrize(
    ("scale", "spec"),
    [("group", AdvantageSpec(epsilon=1e-4)), ("none", AdvantageSpec(kind="group_centred"))],
)
def test_group_advantages_equal_trl_under_its_epsilon(scale: str, spec: AdvantageSpec) -> None:
    for seed in SEEDS:
        rewards = grouped_rewards(seed, 8)
        given = scored(random_batch(seed, 8 * GROUP, 12), rewards, scale_rewards=scale)
        assert_same(compute_advantages(rewards, spec), given["advantages"], 1e-6)


def test_advantages_under_the_default_epsilons_differ_by_less_than_a_thousandth() -> None:
    rewards = grouped_rewards(0, 8)
    given = scored(random_batch(0, 8 * GROUP, 12), rewards)
    mine = compute_advantages(rewards, AdvantageSpec())
    assert_differ(mine, given["advantages"], 1e-5)
    assert_same(mine, given["advantages"], 1e-3)


def test_equal_rewards_leave_a_remainder_in_trl_and_zero_here() -> None:
    batch = random_batch(0, GROUP, 12)
    rewards = torch.full((1, GROUP), 0.1)
    given = scored(batch, rewards)
    assert (compute_advantages(rewards, AdvantageSpec(epsilon=1e-4)) == 0).all()
    assert given["advantages"].abs().max() > 0
    exact = scored(batch, torch.full((1, GROUP), 0.5))
    assert (exact["advantages"] == 0).all(), "rewards whose mean is exact leave none"


def test_batch_scaling_divides_by_the_spread_of_raw_rewards_in_trl() -> None:
    spec = AdvantageSpec(kind="batch_normalised", group_baseline=True)
    for seed in SEEDS:
        rewards = grouped_rewards(seed, 8)
        given = scored(random_batch(seed, 8 * GROUP, 12), rewards, scale_rewards="batch")["advantages"]
        mine = compute_advantages(rewards, spec)
        assert_differ(mine, given, 1e-3)
        centred = compute_advantages(rewards, AdvantageSpec(kind="group_centred"))
        # REINFORCE++ divides by the spread of what is left after the baseline.
        assert_same(mine * (centred.std() / (rewards.std() + 1e-4)), given, 1e-5)

"""prime-rl's two losses, written out from its code (559b447) and compared with the methods of their names.

Its trainer sums the loss over tokens and divides by the number of loss tokens of all ranks.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("yaml")

from cppo_lab.objectives import TokenBatch, aggregate, denominator, method, token_objective


def random_batch(seed: int, rows: int = 64, columns: int = 24) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, rows, columns, generator=generator, dtype=torch.float64)
    rollout = (2 * noise[0]).clamp(max=-1e-3)
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    return TokenBatch(
        logp=(rollout + noise[1]).clamp(max=-1e-3).requires_grad_(),
        rollout_logp=rollout,
        advantages=advantages.masked_fill(torch.rand(rows, generator=generator) < 0.2, 0.0),
        response_mask=torch.rand(rows, columns, generator=generator) < 0.8,
    )


def default_loss(
    batch: TokenBatch, low: float = 0.2, high: float = 0.2, tau: float = 1e-3
) -> tuple[Tensor, Tensor]:
    advantages, mask = batch.advantages.unsqueeze(-1), batch.response_mask
    log_ratio = batch.logp - batch.rollout_logp
    moved = (batch.logp.exp() - batch.rollout_logp.exp()).detach()
    invalid = torch.where(advantages > 0, moved > high, moved < -low)
    loss = -advantages * (mask & ~invalid) * log_ratio.exp() + tau * log_ratio.square() * mask
    return loss.sum() / mask.sum(), invalid & mask


def ipo_loss(batch: TokenBatch, threshold: float = 0.1, tau: float = 1e-3) -> tuple[Tensor, Tensor]:
    advantages, mask = batch.advantages.unsqueeze(-1), batch.response_mask
    log_ratio = batch.logp - batch.rollout_logp
    invalid = (batch.logp.exp() - batch.rollout_logp.exp()).detach().abs() > threshold
    loss = -advantages * (mask & ~invalid) * log_ratio.exp() + tau * log_ratio.square() * mask
    return loss.sum() / mask.sum(), invalid & mask


@pytest.mark.parametrize(
    ("name", "transcribed"), [("prime_rl_default", default_loss), ("prime_rl_ipo", ipo_loss)]
)
def test_loss_and_gradient_are_prime_rls(name: str, transcribed: object) -> None:
    assert callable(transcribed)
    for seed in range(20):
        batch, algo = random_batch(seed), method(name)
        objective = token_objective(batch, algo)
        whole = denominator(batch.response_mask, algo.aggregation)
        mine = aggregate(objective.loss, batch.response_mask, algo.aggregation, whole)
        theirs, invalid = transcribed(batch)
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        slopes = [torch.autograd.grad(loss, batch.logp)[0] for loss in (mine, theirs)]
        torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-12, atol=1e-14)
        # A token with A = 0 has no gradient to lose; prime-rl counts it, the lab does where no sign is read.
        effective = (batch.advantages != 0).unsqueeze(-1)
        assert torch.equal(objective.masked & effective, invalid & effective)

"""Log-probabilities and values of a rollout, recomputed by the trainer's own networks without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cppo_lab.models.loading import Policy
from cppo_lab.models.logprobs import token_statistics
from cppo_lab.models.value_head import Critic
from cppo_lab.rollouts.rollout import Rollout

_AT_ONCE = 256
"""Responses of a forward pass without gradients where no bound is set."""


def recompute_logp(
    network: nn.Module, policy: Policy, rollout: Rollout, *, temperature: float, batch_size: int | None
) -> Tensor:
    """Log-probabilities [B, T] of a rollout's tokens under `network`, float32, 0 at padding.

    `batch_size` responses at a time (None: as many as are safe), in the precision that `policy` computes in.
    """

    def of(part: Rollout) -> Tensor:
        inputs = (part.tokens, part.attention_mask, part.prompt_width)
        return token_statistics(network, *inputs, temperature=temperature).logp

    return _in_batches(policy, rollout, batch_size, of)


def recompute_values(critic: Critic, policy: Policy, rollout: Rollout, *, batch_size: int | None) -> Tensor:
    """The critic's values [B, T] of a rollout's states, float32, 0 at padding."""

    def of(part: Rollout) -> Tensor:
        return critic.values(policy.network, part.tokens, part.attention_mask, part.prompt_width)

    return _in_batches(policy, rollout, batch_size, of)


@torch.no_grad()
def _in_batches(
    policy: Policy, rollout: Rollout, batch_size: int | None, compute: Callable[[Rollout], Tensor]
) -> Tensor:
    found = torch.zeros_like(rollout.logp)
    for rows in torch.arange(len(found)).split(batch_size or _AT_ONCE):
        part = rollout.rows(rows)
        with policy.computing():
            values = compute(part)
        found[rows, : values.shape[1]] = torch.where(part.response_mask, values, 0.0)
    return found

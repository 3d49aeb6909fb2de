"""Log-probabilities and values of a rollout, recomputed by the trainer's own networks without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cppo_lab.config.schema import Trainer
from cppo_lab.models.implementation import is_by_lab
from cppo_lab.models.loading import Policy
from cppo_lab.models.logprobs import token_statistics
from cppo_lab.models.value_head import Critic
from cppo_lab.rollouts.rollout import Rollout
from cppo_lab.training.microbatches import microbatches

_AT_ONCE = 256
"""Responses of a forward pass without gradients where no bound is set."""
_AT_ONCE_BY_LAB = 64
"""The same for the lab's decoder on a CPU, whose cache holds so many: twice as fast, and the same values."""


def recompute_logp(network: nn.Module, policy: Policy, rollout: Rollout, *, settings: Trainer) -> Tensor:
    """Log-probabilities [B, T] of a rollout's tokens under `network`, float32, 0 at padding.

    In the precision that `policy` computes in, and in the micro-batches of `settings`, or as many responses at a time
    as are safe.
    """

    def of(part: Rollout) -> Tensor:
        inputs = (part.tokens, part.attention_mask, part.prompt_width)
        return token_statistics(network, *inputs, temperature=settings.temperature).logp

    return _in_batches(network, policy, rollout, settings, of)


def recompute_values(critic: Critic, policy: Policy, rollout: Rollout, *, settings: Trainer) -> Tensor:
    """The critic's values [B, T] of a rollout's states, float32, 0 at padding."""

    def of(part: Rollout) -> Tensor:
        return critic.values(policy.network, part.tokens, part.attention_mask, part.prompt_width)

    return _in_batches(policy.network, policy, rollout, settings, of)


@torch.no_grad()
def _in_batches(
    network: nn.Module,
    policy: Policy,
    rollout: Rollout,
    settings: Trainer,
    compute: Callable[[Rollout], Tensor],
) -> Tensor:
    found = torch.zeros_like(rollout.logp)
    by_lab = is_by_lab(network)
    safe = _AT_ONCE_BY_LAB if by_lab and found.device.type == "cpu" else _AT_ONCE
    parts = microbatches(
        rollout,
        torch.arange(len(found), device=found.device),
        sequences=settings.microbatch_sequences or safe,
        tokens=settings.microbatch_tokens,
        by_length=not by_lab,
    )
    for rows in parts:
        part = rollout.rows(rows)
        with policy.computing():
            values = compute(part)
        found[rows, : values.shape[1]] = torch.where(part.response_mask, values, 0.0)
    return found

"""Reading a rollout again without gradients, as the trainer's own networks see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cppo_lab.models.loading import Policy
from cppo_lab.models.logprobs import token_statistics
from cppo_lab.models.value_head import Critic
from cppo_lab.rollouts.rollout import Rollout


@dataclass(frozen=True)
class Reader:
    """Reads `rows_at_once` responses at a time, in the precision that `policy` computes in."""

    policy: Policy
    temperature: float
    rows_at_once: int

    def logp(self, network: nn.Module, rollout: Rollout) -> Tensor:
        """Log-probabilities [B, T] of a rollout's tokens under `network`, float32, 0 at padding."""

        def read(part: Rollout) -> Tensor:
            return token_statistics(
                network,
                part.tokens,
                part.attention_mask,
                part.prompt_width,
                temperature=self.temperature,
            ).logp

        return self._read(rollout, read)

    def values(self, critic: Critic, rollout: Rollout) -> Tensor:
        """The critic's values [B, T] of a rollout's states, float32, 0 at padding."""

        def read(part: Rollout) -> Tensor:
            return critic.values(self.policy.network, part.tokens, part.attention_mask, part.prompt_width)

        return self._read(rollout, read)

    @torch.no_grad()
    def _read(self, rollout: Rollout, read: Callable[[Rollout], Tensor]) -> Tensor:
        found = torch.zeros_like(rollout.logp)
        for rows in torch.arange(len(found)).split(self.rows_at_once):
            part = rollout.rows(rows)
            with self.policy.computing():
                values = read(part)
            found[rows, : values.shape[1]] = torch.where(part.response_mask, values, 0.0)
        return found

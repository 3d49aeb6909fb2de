"""PPO's critic: the value of the text before each response token."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from cppo_lab.models.logprobs import response_hidden

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Critic(nn.Module):
    """A linear head on the decoder's states: on those of the policy (shared), or of its own copy (separate).

    The head starts at zero, so that the first values are zero whatever the backbone.
    """

    def __init__(self, policy: PreTrainedModel, backbone: Literal["separate", "shared"]) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(policy) if backbone == "separate" else None
        self.head = nn.Linear(policy.config.hidden_size, 1, dtype=torch.float32, device=policy.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def is_shared(self) -> bool:
        """Whether the policy's own states are read."""
        return self.backbone is None

    def values(self, policy: nn.Module, tokens: Tensor, attention_mask: Tensor, prompt_width: int) -> Tensor:
        """Values [B, T], float32, of the states before each response token of `tokens` [B, P + T]."""
        source = policy if self.backbone is None else self.backbone
        return self.of_hidden(response_hidden(source, tokens, attention_mask, prompt_width))

    def of_hidden(self, hidden: Tensor) -> Tensor:
        """Values [B, T], float32, of states [B, T, d]."""
        # A policy that computes in bfloat16 does so by autocast, which would take the head along.
        with torch.autocast(hidden.device.type, enabled=False):
            value: Tensor = self.head(hidden.float()).squeeze(-1)
        return value

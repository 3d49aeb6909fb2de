"""PPO's critic: the value of the state before each response token."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from cppo_lab.models.logprobs import response_hidden

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Critic(nn.Module):
    """A linear head on hidden states: those of the policy (`shared`), or of its own copy of it (`separate`).

    The head starts at zero, so that initial values are zero.
    """

    def __init__(self, policy: PreTrainedModel, backbone: Literal["separate", "shared"]) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(policy) if backbone == "separate" else None
        self.head = nn.Linear(policy.config.hidden_size, 1, dtype=torch.float32, device=policy.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def is_shared(self) -> bool:
        """Whether it reads the policy's own hidden states."""
        return self.backbone is None

    def values(self, policy: nn.Module, tokens: Tensor, attention_mask: Tensor, prompt_width: int) -> Tensor:
        """Values [B, T], float32, before each response token of `tokens` [B, P + T]."""
        source = policy if self.backbone is None else self.backbone
        return self.of_hidden(response_hidden(source, tokens, attention_mask, prompt_width))

    def of_hidden(self, hidden: Tensor) -> Tensor:
        """Values [B, T], float32, of hidden states [B, T, d]."""
        # Autocast of a bfloat16 policy would run the head in bfloat16 too.
        with torch.autocast(hidden.device.type, enabled=False):
            value: Tensor = self.head(hidden.float()).squeeze(-1)
        return value

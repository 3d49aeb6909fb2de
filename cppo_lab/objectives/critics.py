"""The critic of PPO: its settings, generalised advantages (arXiv 1506.02438), and its loss."""

from __future__ import annotations

from typing import Annotated, Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.parameters import Param


class CriticSpec(Coordinate, path="critic"):
    """The value function of PPO; read by the trainer when the advantage needs values."""

    backbone: Annotated[
        Literal["separate", "shared"], Param(about="A network of its own, or a head on the policy.")
    ] = "separate"
    value_clip: Annotated[
        float | None,
        Param(
            above=0, about="Clip of the new value around the old one, in units of reward; null: no clipping."
        ),
    ] = 0.2
    coefficient: Annotated[
        float, Param(above=0, about="Weight of the value loss; it matters for a shared backbone.")
    ] = 0.5
    warmup_steps: Annotated[
        int, Param(at_least=0, about="Steps at the start that train the critic only.")
    ] = 0
    learning_rate: Annotated[float | None, Param(above=0, about="Null: the policy's.")] = None


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantages and returns, both [B, T], 0 outside the mask; un-whitened.

    `rewards` [B, T] sits at the token that earned it. The recursion skips holes: the next response token's
    value and advantage are carried across them. The response ends the episode (the value after it is 0).
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    inside = mask.to(dtype)
    rewards, values = rewards.to(dtype) * inside, values.to(dtype).masked_fill(~mask, 0.0)
    next_value = torch.zeros_like(values[:, 0])
    running = torch.zeros_like(next_value)
    advantages = torch.zeros_like(values)
    for column in range(values.shape[1] - 1, -1, -1):
        here = mask[:, column]
        error = rewards[:, column] + gamma * next_value - values[:, column]
        running = torch.where(here, error + gamma * lam * running, running)
        next_value = torch.where(here, values[:, column], next_value)
        advantages[:, column] = running
    advantages = advantages * inside
    return advantages, (advantages + values) * inside


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Half the squared error of the critic per token [B, T], PPO's pessimistic clip around the old values.

    Aggregate it as a token mean. `clip` is in units of reward; None for no clipping.
    """
    error = (values - returns).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns).square())
    return 0.5 * error

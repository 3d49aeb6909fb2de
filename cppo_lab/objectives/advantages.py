"""Advantages: from rewards of groups of responses, and GAE from a critic.

GRPO (arXiv 2402.03300), Dr. GRPO (arXiv 2503.20783), RLOO (arXiv 2402.14740), REINFORCE++ (arXiv 2501.03262),
GAE (arXiv 1506.02438).
"""

import torch
from torch import Tensor

from cppo_lab.objectives.coordinates import RegulariserSpec
from cppo_lab.objectives.signal_coordinates import AdvantageSpec

WHITEN_EPSILON = 1e-8


def zero_variance(rewards: Tensor) -> Tensor:
    """Groups whose rewards are all equal, bool [N] from [N, G]; decided by max == min, which rounding
    spares."""
    return rewards.amax(-1) == rewards.amin(-1)


def compute_advantages(rewards: Tensor, spec: AdvantageSpec) -> Tensor:
    """One advantage per response [N * G] from rewards [N prompts, G responses], in float32 at least.

    Groups of equal rewards (so groups of one) get exactly 0, except under batch_normalised without a group
    baseline and under none, which do not compare within the group. Raises ValueError for gae, which needs a
    critic, and for rewards that are not [N, G].
    """
    if rewards.dim() != 2:
        raise ValueError(f"rewards has shape {tuple(rewards.shape)}: must be [N prompts, G responses]")
    if spec.kind == "gae":
        raise ValueError("advantage.kind gae needs values: use token_advantages")
    rewards = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
    if spec.kind == "none":
        return rewards.flatten()
    if spec.kind == "batch_normalised":
        return _batch_normalised(rewards, spec).flatten()
    size = rewards.shape[1]
    centred = (rewards - rewards.mean(-1, keepdim=True)).masked_fill(
        zero_variance(rewards).unsqueeze(-1), 0.0
    )
    if spec.kind == "group_normalised" and size > 1:
        centred = centred / (rewards.std(-1, keepdim=True) + spec.epsilon)
    if spec.kind == "leave_one_out" and size > 1:
        centred = centred * (size / (size - 1))
    return centred.flatten()


def _batch_normalised(rewards: Tensor, spec: AdvantageSpec) -> Tensor:
    if spec.group_baseline:
        flat = zero_variance(rewards).unsqueeze(-1)
        rewards = (rewards - rewards.mean(-1, keepdim=True)).masked_fill(flat, 0.0)
    return whiten(rewards.flatten(), torch.ones_like(rewards.flatten(), dtype=torch.bool)).view_as(rewards)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8) over the masked entries (unbiased variance), 0 elsewhere; any shape.

    Entries that are all equal, or a single one, give exactly 0.
    """
    chosen = values[mask]
    if chosen.numel() < 2 or bool(chosen.amax() == chosen.amin()):
        return torch.zeros_like(values)
    scaled = (values - chosen.mean()) / (chosen.var() + WHITEN_EPSILON).sqrt()
    return scaled.masked_fill(~mask, 0.0)


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


def token_advantages(
    rewards: Tensor,
    response_mask: Tensor,
    spec: AdvantageSpec,
    *,
    values: Tensor | None = None,
    kl: Tensor | None = None,
    regulariser: RegulariserSpec | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Advantages [B, T] of a whole rollout, and the critic's targets [B, T] under gae (else None).

    `rewards` [N, G] with B = N * G, rows in the same order. `kl` [B, T] is the estimate of KL(pi_old ||
    reference) that `regulariser` puts into the reward: per token under gae and batch_normalised (return to
    go, whitened over tokens), summed over the response under the group kinds. Raises ValueError when gae has
    no `values` [B, T] or the shapes do not fit.
    """
    if rewards.dim() != 2 or rewards.numel() != response_mask.shape[0]:
        raise ValueError(
            f"rewards has shape {tuple(rewards.shape)}: must be [N, G] with N * G = {response_mask.shape[0]}"
        )
    rewards = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
    penalty = None
    if kl is not None and regulariser is not None and regulariser.kl_where == "reward":
        penalty = regulariser.kl_coefficient * kl.to(rewards.dtype).masked_fill(~response_mask, 0.0)
    if spec.kind == "gae":
        if values is None:
            raise ValueError("advantage.kind gae needs values [B, T] of the critic")
        earned = _at_last_token(rewards.flatten(), response_mask)
        earned = earned if penalty is None else earned - penalty
        advantages, returns = gae(earned, values, response_mask, spec.gamma, spec.lam)
        return (whiten(advantages, response_mask) if spec.whiten else advantages), returns
    if penalty is not None and spec.kind == "batch_normalised":
        if spec.group_baseline:
            rewards = rewards - rewards.mean(-1, keepdim=True)
        to_go = penalty.flip(-1).cumsum(-1).flip(-1)
        return whiten(rewards.flatten().unsqueeze(-1) - to_go, response_mask), None
    if penalty is not None:
        rewards = rewards - penalty.sum(-1).view_as(rewards)
    advantages = compute_advantages(rewards, spec).unsqueeze(-1).expand(response_mask.shape)
    return advantages.masked_fill(~response_mask, 0.0), None


def _at_last_token(rewards: Tensor, mask: Tensor) -> Tensor:
    last = mask & (mask.cumsum(-1) == mask.sum(-1, keepdim=True))
    return rewards.unsqueeze(-1) * last

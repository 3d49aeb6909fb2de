"""Advantages: from the rewards of groups of responses, or of a critic's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.coordinate import OFF, Coordinate
from cppo_lab.objectives.critics import gae
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.regularisers import RegulariserSpec
from cppo_lab.objectives.rules import Rules

WHITEN_EPSILON = 1e-8


@dataclass(frozen=True)
class AdvantageInputs:
    """What an advantage may read. Rows of [B, T] are those of the flattened rewards, B = N * G."""

    rewards: Tensor
    """[N prompts, G responses], in float32 at least."""
    mask: Tensor | None = None
    """[B, T] bool; None when only one advantage per response is asked for."""
    penalty: Tensor | None = None
    """[B, T] the KL penalty in the reward, 0 outside the mask; None without one."""
    values: Tensor | None = None
    """[B, T] of the critic."""

    @property
    def totals(self) -> Tensor:
        """[N, G] rewards less the penalty summed over each response."""
        if self.penalty is None:
            return self.rewards
        return self.rewards - self.penalty.sum(-1).view_as(self.rewards)

    @property
    def centred(self) -> Tensor:
        """[N, G] totals less their group's mean; exactly 0 in groups of equal totals, so in groups of one."""
        totals = self.totals
        flat = zero_variance(totals).unsqueeze(-1)
        return (totals - totals.mean(-1, keepdim=True)).masked_fill(flat, 0.0)


@dataclass(frozen=True)
class TokenAdvantages:
    """Advantages per token and the targets of the critic, both [B, T]."""

    advantages: Tensor
    returns: Tensor


advantages = Rules("advantage.kind")
"""A rule returns one advantage per response [N, G], or per token [B, T], or `TokenAdvantages`."""


@advantages.register(OFF)
def rewards_alone(at: AdvantageInputs) -> Tensor:
    """The reward itself."""
    return at.totals


Epsilon = Annotated[
    float,
    Param(default=1e-6, at_least=0, about="Added to the group's sample standard deviation (ddof 1)."),
]


@advantages.register("group_normalised", paper="arXiv:2402.03300", needs=["group"])
def group_normalised(at: AdvantageInputs, *, epsilon: Epsilon) -> Tensor:
    """(R - mean) / (std + epsilon) (GRPO)."""
    if at.rewards.shape[1] == 1:
        return at.centred
    return at.centred / (at.totals.std(-1, keepdim=True) + epsilon)


@advantages.register("group_median", paper="arXiv:2604.18578", needs=["group"])
def group_median(at: AdvantageInputs, *, epsilon: Epsilon) -> Tensor:
    """(R - median) / (std + epsilon) (GBPO).

    The median of an even number is the mean of the two in the middle.
    """
    totals = at.totals
    if totals.shape[1] == 1:
        return at.centred
    centred = totals - totals.quantile(0.5, dim=-1, keepdim=True)
    spread = totals.std(-1, keepdim=True) + epsilon
    return (centred / spread).masked_fill(zero_variance(totals).unsqueeze(-1), 0.0)


@advantages.register("group_centred", paper="arXiv:2503.20783", needs=["group"])
def group_centred(at: AdvantageInputs) -> Tensor:
    """R - mean (Dr. GRPO)."""
    return at.centred


@advantages.register("leave_one_out", paper="arXiv:2402.14740", needs=["group"])
def leave_one_out(at: AdvantageInputs) -> Tensor:
    """R - mean of the group's other responses (RLOO)."""
    size = at.rewards.shape[1]
    return at.centred * (size / (size - 1)) if size > 1 else at.centred


@advantages.register("batch_normalised", paper="arXiv:2501.03262")
def batch_normalised(
    at: AdvantageInputs,
    *,
    group_baseline: Annotated[bool, Param(about="Subtract the group's mean first.")] = False,
) -> Tensor:
    """Rewards whitened over the batch (REINFORCE++).

    Whitened over responses, or over tokens when a KL penalty per token is in the reward.
    """
    rewards = at.rewards
    if at.penalty is not None:
        assert at.mask is not None, "a penalty per token comes with the mask"
        if group_baseline:
            rewards = rewards - rewards.mean(-1, keepdim=True)
        to_go = at.penalty.flip(-1).cumsum(-1).flip(-1)
        return whitened(rewards.flatten().unsqueeze(-1) - to_go, at.mask)
    if group_baseline:
        rewards = at.centred
    return whitened(rewards.flatten(), torch.ones_like(rewards.flatten(), dtype=torch.bool)).view_as(rewards)


@advantages.register("gae", paper="arXiv:1506.02438", needs=["values"])
def generalised(
    at: AdvantageInputs,
    *,
    gamma: Annotated[float, Param(at_least=0, at_most=1, about="Discount per token.")] = 1.0,
    lam: Annotated[float, Param(at_least=0, at_most=1, about="The lambda of GAE.")] = 1.0,
    whiten: Annotated[
        bool, Param(about="Whiten over all response tokens of the batch, after the returns are taken.")
    ] = True,
) -> TokenAdvantages:
    """Generalised advantages of a critic (PPO)."""
    assert at.mask is not None, "values per token come with the mask"
    assert at.values is not None, "a rule that needs values is given them"
    last = at.mask & (at.mask.cumsum(-1) == at.mask.sum(-1, keepdim=True))
    earned = at.rewards.flatten().unsqueeze(-1) * last
    earned = earned if at.penalty is None else earned - at.penalty
    found, returns = gae(earned, at.values, at.mask, gamma, lam)
    return TokenAdvantages(whitened(found, at.mask) if whiten else found, returns)


class AdvantageSpec(Coordinate, path="advantage"):
    """How rewards become advantages."""

    kind: Annotated[str, advantages] = "group_normalised"


def zero_variance(rewards: Tensor) -> Tensor:
    """Groups whose rewards are all equal, bool [N] from [N, G]; by max == min, which rounding spares."""
    return rewards.amax(-1) == rewards.amin(-1)


def whitened(values: Tensor, mask: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8) over the masked entries (unbiased variance), 0 elsewhere; any shape.

    Entries that are all equal, or a single one, give exactly 0.
    """
    chosen = values[mask]
    if chosen.numel() < 2 or bool(chosen.amax() == chosen.amin()):
        return torch.zeros_like(values)
    scaled = (values - chosen.mean()) / (chosen.var() + WHITEN_EPSILON).sqrt()
    return scaled.masked_fill(~mask, 0.0)


def compute_advantages(rewards: Tensor, spec: AdvantageSpec) -> Tensor:
    """One advantage per response [N * G] from rewards [N prompts, G responses], in float32 at least.

    Raises ValueError for a rule that needs a critic, and for rewards that are not [N, G].
    """
    if rewards.dim() != 2:
        raise ValueError(f"rewards has shape {tuple(rewards.shape)}: must be [N prompts, G responses]")
    if "values" in advantages[spec.kind].needs:
        raise ValueError(f"advantage.kind {spec.kind} needs values: use token_advantages")
    rewards = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
    found: Tensor = spec.rule()(AdvantageInputs(rewards))
    return found.flatten()


def token_advantages(
    rewards: Tensor,
    response_mask: Tensor,
    spec: AdvantageSpec,
    *,
    values: Tensor | None = None,
    kl: Tensor | None = None,
    regulariser: RegulariserSpec | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Advantages [B, T] of a whole rollout, and the critic's targets [B, T] (None without a critic).

    `rewards` [N, G] with B = N * G, rows in the same order. `kl` [B, T] is the estimate of KL(pi_old ||
    reference) that `regulariser` puts into the reward. Raises ValueError when a rule that needs `values` [B, T] has
    none or the shapes do not fit.
    """
    if rewards.dim() != 2 or rewards.numel() != response_mask.shape[0]:
        raise ValueError(
            f"rewards has shape {tuple(rewards.shape)}: must be [N, G] with N * G = {response_mask.shape[0]}"
        )
    if values is None and "values" in advantages[spec.kind].needs:
        raise ValueError(f"advantage.kind {spec.kind} needs values [B, T] of the critic")
    rewards = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
    penalty = None
    if kl is not None and regulariser is not None and regulariser.kl_where == "reward":
        penalty = regulariser.kl_coefficient * kl.to(rewards.dtype).masked_fill(~response_mask, 0.0)
    found: Tensor | TokenAdvantages = spec.rule()(AdvantageInputs(rewards, response_mask, penalty, values))
    if isinstance(found, TokenAdvantages):
        return found.advantages, found.returns
    if found.shape != response_mask.shape:
        found = found.reshape(-1, 1).expand(response_mask.shape)
    return found.masked_fill(~response_mask, 0.0), None

"""Surrogates: the token loss -A * (importance of the token), un-aggregated.

PPO (arXiv 1707.06347), CISPO (MiniMax-M1), MinPRO (arXiv 2601.22718), GSPO (arXiv 2507.18071), GMPO
(arXiv 2507.20673), SAPO (arXiv 2511.20347), DRPO (arXiv 2606.09821), CTPO (arXiv 2605.07331).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cppo_lab.objectives.coordinates import SurrogateSpec
from cppo_lab.objectives.log_ratios import MAX_LOG_RATIO
from cppo_lab.objectives.prefixes import positions, row_mean, shift_right
from cppo_lab.objectives.trust_regions import ClipWindow


@dataclass(frozen=True)
class SurrogateInputs:
    """What a surrogate may read, all [B, T]; `logp`, `log_ratios` and `ratio` carry gradient."""

    logp: Tensor
    anchor_logp: Tensor
    log_ratios: Tensor
    """log(pi / anchor) of each token."""
    ratio: Tensor
    """The importance ratio of `importance_ratio`."""
    advantages: Tensor
    mask: Tensor
    gate: Tensor
    """The trust region's factor on the gradient."""
    window: ClipWindow | None
    """Bounds of the ratio; present under ratio_clip, which clipped and geometric require."""


def importance_ratio(log_ratios: Tensor, mask: Tensor, spec: SurrogateSpec) -> Tensor:
    """The ratio of `spec.ratio` [B, T], 1 outside the mask; gradient through the token's own log-ratio only.

    sequence: exp of the mean log-ratio (GSPO-token form). prefix_minimum: rho_t times the smallest ratio
    before it, 1 for the first token and not capped at 1. prefix_product: the product up to t. Logarithms of
    the result are clamped to +-MAX_LOG_RATIO.
    """
    own = log_ratios.masked_fill(~mask, 0.0)
    context = _context(own.detach(), mask, spec)
    return (own + context).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _context(own: Tensor, mask: Tensor, spec: SurrogateSpec) -> Tensor:
    """What the other tokens add to the token's log-ratio [B, T]."""
    if spec.ratio == "sequence":
        return (row_mean(own, mask).unsqueeze(-1) - own).masked_fill(~mask, 0.0)
    if spec.ratio == "prefix_minimum":
        smallest = own.masked_fill(~mask, torch.inf).cummin(-1).values
        if not spec.inclusive:
            smallest = shift_right(smallest, torch.inf)
        return smallest.masked_fill(smallest == torch.inf, 0.0).masked_fill(~mask, 0.0)
    if spec.ratio == "prefix_product":
        return shift_right(own.cumsum(-1)).masked_fill(~mask, 0.0)
    if spec.ratio == "prefix_mean":
        return own.cumsum(-1) / positions(mask).clamp(min=1) - own
    return torch.zeros_like(own)


def surrogate_loss(inputs: SurrogateInputs, spec: SurrogateSpec) -> Tensor:
    """The loss of each token [B, T] to minimise; anything outside the mask.

    The clipped kinds keep their constant clipped value where the gradient is cut; the others give 0 at
    dropped tokens.
    """
    return _KINDS[spec.kind](inputs, spec)


def ratio_loss(inputs: SurrogateInputs, spec: SurrogateSpec) -> Tensor:
    """-A rho, gated."""
    return -inputs.advantages * inputs.gate * inputs.ratio


def truncated_loss(inputs: SurrogateInputs, spec: SurrogateSpec) -> Tensor:
    """CISPO: -sg[clamp(rho)] A log pi, gated. A token beyond the bounds keeps a gradient of bounded size."""
    weight = inputs.ratio.detach().clamp(spec.ratio_low, spec.ratio_high)
    return -inputs.advantages * inputs.gate * weight * inputs.logp


def log_probability_loss(inputs: SurrogateInputs, spec: SurrogateSpec) -> Tensor:
    """REINFORCE: -A log pi, gated."""
    return -inputs.advantages * inputs.gate * inputs.logp


def sapo_loss(inputs: SurrogateInputs, spec: SurrogateSpec) -> Tensor:
    """SAPO: -A (4 / tau) sigmoid(tau (rho - 1)); the temperature depends on the sign of A."""
    positive = torch.full_like(inputs.ratio, spec.tau_positive)
    temperature = positive.masked_fill(inputs.advantages <= 0, spec.tau_negative)
    soft = torch.sigmoid(temperature * (inputs.ratio - 1)) * 4 / temperature
    return -inputs.advantages * inputs.gate * soft


def quadratic_loss(inputs: SurrogateInputs, spec: SurrogateSpec) -> Tensor:
    """DRPO: -A rho + |A| mu(a) (rho - 1)^2 / (2 epsilon), gated; SPO without the factor mu(a)."""
    penalty = inputs.advantages.abs() * (inputs.ratio - 1).square() / (2 * spec.penalty_epsilon)
    if spec.penalty_scale == "anchor_probability":
        penalty = penalty * inputs.anchor_logp.exp()
    return inputs.gate * (-inputs.advantages * inputs.ratio + penalty)


def clipped_loss(inputs: SurrogateInputs, spec: SurrogateSpec) -> Tensor:
    """PPO: max(-A r, -A clip(r)), bounded by -A * dual where A < 0."""
    low, high = _bounds(inputs)
    advantages, ratio = inputs.advantages, inputs.ratio
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(low, high))
    if inputs.window is None or inputs.window.dual is None:
        return loss
    return torch.where(advantages < 0, torch.minimum(loss, -advantages * inputs.window.dual), loss)


def geometric_loss(inputs: SurrogateInputs, spec: SurrogateSpec) -> Tensor:
    """GMPO: -A exp(mean_t x_t), with x_t clipped one-sidedly by the sign of A before the mean.

    Each token holds the value of its response, and the gradient of its own x_t.
    """
    low, high = (bound.log() for bound in _bounds(inputs))
    sign = inputs.advantages.sign()
    clipped = inputs.log_ratios.clamp(low, high)
    one_sided = sign * torch.minimum(sign * inputs.log_ratios, sign * clipped)
    one_sided = one_sided.masked_fill(~inputs.mask, 0.0)
    value = row_mean(one_sided.detach(), inputs.mask).unsqueeze(-1)
    return -inputs.advantages * (value + one_sided - one_sided.detach()).exp()


def _bounds(inputs: SurrogateInputs) -> tuple[Tensor, Tensor]:
    assert inputs.window is not None, "the clipped kinds were validated to come with ratio_clip"
    low, high = (
        torch.as_tensor(bound, dtype=inputs.ratio.dtype, device=inputs.ratio.device)
        for bound in (inputs.window.low, inputs.window.high)
    )
    return low, high


_KINDS: dict[str, Callable[[SurrogateInputs, SurrogateSpec], Tensor]] = {
    "ratio": ratio_loss,
    "clipped": clipped_loss,
    "truncated": truncated_loss,
    "log_probability": log_probability_loss,
    "geometric": geometric_loss,
    "sapo": sapo_loss,
    "quadratic": quadratic_loss,
}

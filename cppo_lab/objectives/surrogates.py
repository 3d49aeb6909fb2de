"""Surrogates: the token loss -A * (importance of the token), un-aggregated.

PPO (arXiv 1707.06347), CISPO (MiniMax-M1), MinPRO (arXiv 2601.22718), GSPO (arXiv 2507.18071), GMPO
(arXiv 2507.20673), SAPO (arXiv 2511.20347), DRPO (arXiv 2606.09821), CTPO (arXiv 2605.07331).
"""

import torch
from torch import Tensor

from cppo_lab.objectives.coordinates import SurrogateSpec
from cppo_lab.objectives.log_ratios import MAX_LOG_RATIO
from cppo_lab.objectives.prefixes import positions, row_mean, shift_right
from cppo_lab.objectives.trust_regions import ClipWindow


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


def surrogate_loss(
    logp: Tensor,
    anchor_logp: Tensor,
    log_ratios: Tensor,
    ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    gate: Tensor,
    window: ClipWindow | None,
    spec: SurrogateSpec,
) -> Tensor:
    """The loss of each token [B, T] to minimise, gated; only `logp`, `log_ratios` and `ratio` carry gradient.

    The clipped kinds keep their constant clipped value where the gradient is cut; the others give 0 at
    dropped tokens. `window` is needed by the clipped kinds.
    """
    if spec.kind == "clipped":
        assert window is not None, "clipped was validated to come with ratio_clip"
        return clipped_loss(ratio, advantages, window)
    if spec.kind == "geometric":
        assert window is not None, "geometric was validated to come with ratio_clip"
        return geometric_loss(log_ratios, advantages, mask, window)
    if spec.kind == "truncated":
        weight = ratio.detach().clamp(spec.ratio_low, spec.ratio_high)
        return -advantages * gate * weight * logp
    if spec.kind == "log_probability":
        return -advantages * gate * logp
    if spec.kind == "sapo":
        positive = torch.full_like(ratio, spec.tau_positive)
        temperature = positive.masked_fill(advantages <= 0, spec.tau_negative)
        return -advantages * gate * torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature
    if spec.kind == "quadratic":
        scale = anchor_logp.exp() if spec.penalty_scale == "anchor_probability" else torch.ones_like(ratio)
        penalty = advantages.abs() * scale * (ratio - 1).square() / (2 * spec.penalty_epsilon)
        return gate * (-advantages * ratio + penalty)
    return -advantages * gate * ratio


def clipped_loss(ratio: Tensor, advantages: Tensor, window: ClipWindow) -> Tensor:
    """PPO's max(-A r, -A clip(r)), bounded by -A * dual where A < 0."""
    low = torch.as_tensor(window.low, dtype=ratio.dtype, device=ratio.device)
    high = torch.as_tensor(window.high, dtype=ratio.dtype, device=ratio.device)
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(low, high))
    if window.dual is None:
        return loss
    return torch.where(advantages < 0, torch.minimum(loss, -advantages * window.dual), loss)


def geometric_loss(log_ratios: Tensor, advantages: Tensor, mask: Tensor, window: ClipWindow) -> Tensor:
    """GMPO: -A exp(mean_t x_t), with x_t clipped one-sidedly by the sign of A before the mean.

    Each token holds the value of its response, and the gradient of its own x_t.
    """
    low = torch.as_tensor(window.low, dtype=log_ratios.dtype, device=log_ratios.device).log()
    high = torch.as_tensor(window.high, dtype=log_ratios.dtype, device=log_ratios.device).log()
    sign = advantages.sign()
    one_sided = sign * torch.minimum(sign * log_ratios, sign * log_ratios.clamp(low, high))
    one_sided = one_sided.masked_fill(~mask, 0.0)
    value = row_mean(one_sided.detach(), mask).unsqueeze(-1)
    return -advantages * (value + one_sided - one_sided.detach()).exp()

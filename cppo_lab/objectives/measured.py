"""What every rule starts from: log-ratios, advantages and divergences of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.divergences import divergence
from cppo_lab.objectives.log_ratios import log_ratio, moves_away, read_logp
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.objectives.surrogates import importance_ratio


@dataclass(frozen=True)
class Measured:
    """All [B, T]; `logp`, `log_ratios` and `ratio` carry gradient, the others are detached."""

    logp: Tensor
    anchor_logp: Tensor
    log_ratios: Tensor
    """log(pi / anchor), clamped."""
    clamped: Tensor
    """bool: the log-ratio hit the safety clamp."""
    ratio: Tensor
    """The surrogate's importance ratio; 1 outside the mask."""
    advantages: Tensor
    away: Tensor
    """bool: A (rho - 1) > 0."""
    distance: Tensor | None
    """D_t; None when the method has none."""
    mean_distance: Tensor | None


def measured(batch: TokenBatch, algo: AlgoSpec) -> Measured:
    """Measure `batch` for `algo`, in float32 at least. Raises ValueError when it lacks a tensor."""
    mask = batch.response_mask
    logp = read_logp(batch.logp, mask)
    anchor_logp = _anchor_logp(batch, algo)
    advantages = _token_advantages(batch, logp.dtype)
    log_ratios, clamped = log_ratio(logp, anchor_logp)
    given = (algo.divergence, logp.detach(), anchor_logp, mask, batch.topk, batch.full)
    return Measured(
        logp=logp,
        anchor_logp=anchor_logp,
        log_ratios=log_ratios,
        clamped=clamped,
        ratio=importance_ratio(log_ratios, mask, algo.surrogate),
        advantages=advantages,
        away=moves_away(advantages, log_ratios.detach()) & mask,
        distance=divergence(*given),
        mean_distance=divergence(*given, selector="mean_kind"),
    )


def _anchor_logp(batch: TokenBatch, algo: AlgoSpec) -> Tensor:
    if algo.anchor == "rollout":
        return read_logp(batch.rollout_logp.detach(), batch.response_mask)
    if batch.old_logp is None:
        raise ValueError(f"{algo.name} is anchored at old and needs TokenBatch.old_logp")
    return read_logp(batch.old_logp.detach(), batch.response_mask)


def _token_advantages(batch: TokenBatch, dtype: torch.dtype) -> Tensor:
    advantages = batch.advantages.detach()
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(-1).expand(batch.logp.shape)
    return advantages.to(dtype).masked_fill(~batch.response_mask, 0.0)

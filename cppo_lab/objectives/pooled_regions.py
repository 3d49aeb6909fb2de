"""Trust regions over a response, the responses to one prompt, or the whole minibatch."""

from __future__ import annotations

from typing import Annotated, Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.decisions import Decision
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.pooled import PooledTokens
from cppo_lab.objectives.prefixes import row_mean
from cppo_lab.objectives.trust_regions import DeltaMean, RegionInputs, trust_regions

Scope = Literal["sequence", "batch", "batch_prompt"]
Pool = Literal["away", "all"]


def _means(pool: PooledTokens, *, scope: Scope) -> dict[str, Tensor]:
    """The mean of D over the minibatch, and over the tokens of each prompt where the scope asks for it."""
    assert pool.distance is not None, "a region that needs divergence is given it"
    found = {"mean_divergence": pool.distance.mean() if len(pool.distance) else pool.distance.new_zeros(())}
    if scope == "batch_prompt":
        if pool.prompt is None:
            raise ValueError("trust_region.scope batch_prompt needs TokenBatch.prompt")
        prompts, place = torch.unique(pool.prompt, return_inverse=True)
        sums = pool.distance.new_zeros(len(prompts)).index_add_(0, place, pool.distance)
        found |= {"prompts": prompts, "prompt_mean_divergence": sums / place.bincount(minlength=len(prompts))}
    return found


@trust_regions.register(
    "switched_mean",
    needs=["divergence", "gate", "prompt"],
    statistic=_means,
    statistic_when=lambda region: region.scope != "sequence",
)
def switched_mean(
    at: RegionInputs,
    *,
    delta_mean: DeltaMean,
    scope: Annotated[
        Scope,
        Param(
            always_shown=True,
            about="Over what D is averaged: the response, the minibatch, or both the minibatch and the prompt.",
        ),
    ] = "sequence",
) -> Decision:
    """Drop tokens that move away, once the mean D over `scope` exceeds delta_mean; below it, none.

    Under `batch_prompt` both the mean of the minibatch and that of the prompt's responses must exceed it.
    """
    mean = _mean_in_scope(at, scope)
    within = (mean <= delta_mean).expand_as(at.mask)
    return at.decide(within, lambda: (mean / delta_mean).expand_as(at.ratio))


def _mean_in_scope(at: RegionInputs, scope: Scope) -> Tensor:
    """What is compared with the threshold, [B, 1]."""
    if scope == "sequence":
        return row_mean(at.divergence, at.mask).unsqueeze(-1)
    whole = at.statistics["mean_divergence"].to(at.ratio).expand(len(at.mask), 1)
    if scope == "batch":
        return whole
    if at.prompt is None:
        raise ValueError("trust_region.scope batch_prompt needs TokenBatch.prompt")
    prompts, means = at.statistics["prompts"], at.statistics["prompt_mean_divergence"].to(at.ratio)
    # A row without response tokens can be alone with its prompt, which then has no mean.
    place = torch.searchsorted(prompts, at.prompt).clamp(max=max(len(prompts) - 1, 0))
    of_prompt = means[place] if len(prompts) else torch.zeros_like(at.ratio[:, 0])
    return torch.minimum(whole, of_prompt.unsqueeze(-1))


def _cutoff(pool: PooledTokens, *, delta_mean: float, trimmed_from: Pool) -> dict[str, Tensor]:
    """The D beyond which tokens are dropped until the mean over the others is within delta_mean.

    It lies halfway between the largest D that is kept and the least that is dropped, so that rounding moves no token
    across. Tokens of equal D are dropped together: no order of the rows decides between them.
    """
    assert pool.distance is not None, "a region that needs divergence is given it"
    ordered = pool.distance[pool.away] if trimmed_from == "away" else pool.distance
    ordered = ordered.sort().values
    before = ordered.mean() if len(ordered) else ordered.new_zeros(())
    counts = torch.arange(1, len(ordered) + 1, device=ordered.device)
    kept = int((ordered.cumsum(0) / counts <= delta_mean).sum())
    cutoff = ordered.new_full((), torch.inf)
    if kept < len(ordered):
        below = ordered[ordered < ordered[kept]]
        cutoff = (ordered[kept] + (below[-1] if len(below) else 0.0)) / 2
    return {"pool_mean_divergence": before, "cutoff_divergence": cutoff}


@trust_regions.register(
    "trimmed_mean", paper="arXiv:2510.01161", needs=["divergence", "gate"], statistic=_cutoff
)
def trimmed_mean(
    at: RegionInputs,
    *,
    delta_mean: DeltaMean,
    trimmed_from: Annotated[
        Pool, Param(about="Whose mean is bounded: tokens that move away (M2PO's paper), or all (AReaL).")
    ] = "away",
) -> Decision:
    """Drop the largest D among tokens that move away, until their mean over the minibatch is delta_mean (M2PO)."""
    cutoff = at.statistics["cutoff_divergence"].to(at.ratio)
    subject = at.away if trimmed_from == "away" else at.mask
    return at.decide(at.divergence <= cutoff, lambda: at.divergence / cutoff, subject=subject)

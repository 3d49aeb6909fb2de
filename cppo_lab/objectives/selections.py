"""Selections: a few tokens of a minibatch, by the covariance of advantage and log-probability, that are held back.

The covariance of token t is (A_t - mean A)(log pi_t - mean log pi), with means over the response tokens of the whole
minibatch; tokens where it is large lower the entropy most (arXiv 2505.22617).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.coordinate import OFF, Coordinate
from cppo_lab.objectives.parameters import Param, fail
from cppo_lab.objectives.pooled import PooledTokens, Statistics
from cppo_lab.objectives.rules import Rules

COVARIANCE = "arXiv:2505.22617"
Share = Annotated[
    float,
    Param(
        default=2e-4,
        above=0,
        at_most=1,
        always_shown=True,
        about="Of the minibatch's response tokens; at least one is selected.",
    ),
]


@dataclass(frozen=True)
class SelectionInputs:
    """What a selection may read, all [B, T]; only `log_ratios` carries gradient."""

    log_ratios: Tensor
    """log(pi / anchor), clamped."""
    logp: Tensor
    advantages: Tensor
    kept: Tensor
    """bool: response tokens that the trust region keeps."""
    mask: Tensor
    order: Tensor | None
    """Sort keys drawn once per update."""
    statistics: Statistics

    @property
    def covariance(self) -> Tensor:
        """Float64; meaningless outside the mask."""
        return _covariance(self.advantages, self.logp, self.statistics)


@dataclass(frozen=True)
class Selected:
    """What becomes of the selected tokens, both [B, T]; None where the rule does not do it."""

    dropped: Tensor | None = None
    """bool: tokens without loss."""
    penalty: Tensor | None = None
    """What is added to the token loss, with gradient."""


selections = Rules("selection.kind")


@selections.register(OFF)
def no_selection(at: SelectionInputs) -> Selected:
    """None is held back."""
    return Selected()


def _covariance(advantages: Tensor, logp: Tensor, means: Statistics) -> Tensor:
    return (advantages.double() - means["mean_advantage"]) * (logp.double() - means["mean_logp"])


def _means(pool: PooledTokens) -> dict[str, Tensor]:
    # The mean of no tokens is never read.
    return {"mean_advantage": pool.advantages.double().mean(), "mean_logp": pool.logp.double().mean()}


def _number(pool: PooledTokens, share: float) -> int:
    return max(int(share * len(pool.advantages)), 1)


def _halfway(ordered: Tensor, number: int) -> Tensor:
    """A value between the first `number` of `ordered` [N] and the others, so that rounding moves none across."""
    if number >= len(ordered):
        return ordered.new_full((), torch.inf)
    return (ordered[number - 1] + ordered[number]) / 2


def _drawn(
    pool: PooledTokens, *, covariance_share: float, covariance_low: float, covariance_high: float
) -> dict[str, Tensor]:
    if pool.order is None:
        raise ValueError("selection.kind clip_cov needs TokenBatch.selection_order")
    means = _means(pool)
    candidates = _between(_covariance(pool.advantages, pool.logp, means), covariance_low, covariance_high)
    keys = pool.order[candidates & pool.kept].double().sort().values
    return {**means, "cutoff_order": _halfway(keys, _number(pool, covariance_share))}


def _between(covariance: Tensor, low: float, high: float) -> Tensor:
    return (covariance > low) & (covariance < high)


def _check_region(algo: Coordinate) -> None:
    if any(rule.statistic is not None for rule in algo.trust_region.selected().values()):
        raise fail(
            "selection.kind", algo.selection.kind, "needs a trust region that reads no statistics itself"
        )


@selections.register(
    "clip_cov", paper=COVARIANCE, needs=["selection_order"], statistic=_drawn, check=_check_region
)
def clip_cov(
    at: SelectionInputs,
    *,
    covariance_share: Share,
    covariance_low: Annotated[float, Param(about="Candidates have a larger covariance.")] = 1.0,
    covariance_high: Annotated[
        float, Param(above="covariance_low", infinite=True, about="Candidates have a smaller covariance.")
    ] = 5.0,
) -> Selected:
    """Drop a share of tokens, drawn among those that the trust region keeps and whose covariance is in a range."""
    assert at.order is not None, "a rule that needs selection_order is given it"
    candidates = _between(at.covariance, covariance_low, covariance_high) & at.kept
    return Selected(dropped=candidates & (at.order.double() <= at.statistics["cutoff_order"]))


def _largest(pool: PooledTokens, *, covariance_share: float) -> dict[str, Tensor]:
    means = _means(pool)
    descending = _covariance(pool.advantages, pool.logp, means).sort(descending=True).values
    least = descending[: _number(pool, covariance_share)][-1:]
    below = descending[descending < least]
    cutoff = (least[0] + below[0]) / 2 if len(below) else descending.new_full((), -torch.inf)
    return {**means, "cutoff_covariance": cutoff}


@selections.register("kl_cov", paper=COVARIANCE, statistic=_largest, check=_check_region)
def kl_cov(
    at: SelectionInputs,
    *,
    covariance_share: Share,
    covariance_penalty: Annotated[float, Param(at_least=0, always_shown=True, about="c.")] = 1.0,
) -> Selected:
    """Add c |log ratio| to the loss of the share of tokens with the largest covariance.

    Tokens of equal covariance, such as the certain ones of a response, are selected together. The penalty has no
    gradient where the ratio is 1, so at the first update of an on-policy rollout.
    """
    chosen = (at.covariance > at.statistics["cutoff_covariance"]) & at.mask
    return Selected(penalty=covariance_penalty * at.log_ratios.abs() * chosen)


class SelectionSpec(Coordinate, path="selection"):
    """A few tokens that are held back because of their covariance of advantage and log-probability."""

    kind: Annotated[str, selections] = OFF

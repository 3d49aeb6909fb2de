"""From token losses to one number; denominators count the response tokens of the whole minibatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cppo_lab.lazy_torch import Tensor
from cppo_lab.objectives.batch import bool_mask
from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.rules import Rules


@dataclass(frozen=True)
class Normaliser:
    """How rows count: each row's summed loss is divided by `lengths`, their sum over the minibatch by `count`."""

    count: Tensor
    """Scalar; the sum of the counts of all micro-batches, at least 1, is the denominator."""
    lengths: Tensor | None = None
    """[B]; None for no division."""


aggregations = Rules("aggregation.kind")


@aggregations.register("token_mean", paper="arXiv:2503.14476")
def token_mean(mask: Tensor) -> Normaliser:
    """The mean over response tokens."""
    return Normaliser(mask.sum())


@aggregations.register("sequence_mean_token_mean", paper="arXiv:2402.03300")
def sequence_mean_token_mean(mask: Tensor) -> Normaliser:
    """The mean over responses of their token means."""
    return Normaliser(_rows(mask), mask.sum(-1).clamp(min=1))


@aggregations.register("sequence_mean_token_sum", paper="arXiv:2402.14740")
def sequence_mean_token_sum(mask: Tensor) -> Normaliser:
    """The mean over responses of their token sums."""
    return Normaliser(_rows(mask))


@aggregations.register("sequence_mean_token_sum_norm", paper="arXiv:2503.20783")
def sequence_mean_token_sum_norm(
    mask: Tensor,
    *,
    horizon: Annotated[
        int | None,
        Param(
            at_least=1,
            refuse_unread=True,
            about="H in tokens; null: the configured maximum response length.",
        ),
    ] = None,
) -> Normaliser:
    """The mean over responses of their token sums, divided by a fixed horizon H.

    Raises ValueError without a horizon, which the caller fills in with `AlgoSpec.with_horizon`.
    """
    if horizon is None:
        raise ValueError(
            "aggregation.horizon = null: fill in the maximum response length with AlgoSpec.with_horizon"
        )
    return Normaliser(_rows(mask) * horizon)


def _rows(mask: Tensor) -> Tensor:
    """The number of rows that have response tokens."""
    return mask.any(-1).sum()


class AggregationSpec(Coordinate, path="aggregation"):
    """How token losses become one number; rows without response tokens never count."""

    kind: Annotated[str, aggregations] = "token_mean"


def denominator(response_mask: Tensor, aggregation: AggregationSpec) -> Tensor:
    """What the summed loss of a whole minibatch is divided by (scalar, float32); at least 1.

    Compute it once per minibatch, over all micro-batches, from the mask of response tokens [B, T] (never
    from a trust region's mask).
    """
    shares: Normaliser = aggregation.rule()(bool_mask(response_mask))
    return shares.count.float().clamp(min=1)


def aggregate(
    loss: Tensor, response_mask: Tensor, aggregation: AggregationSpec, denominator: Tensor
) -> Tensor:
    """The share of these rows in the minibatch's loss (scalar); summed over micro-batches it is the loss.

    `loss` [B, T] may be a micro-batch; `denominator` is that of the whole minibatch.
    """
    mask = bool_mask(response_mask)
    inside = loss.masked_fill(~mask, 0.0)
    shares: Normaliser = aggregation.rule()(mask)
    if shares.lengths is None:
        return inside.sum() / denominator
    return (inside.sum(-1) / shares.lengths).sum() / denominator

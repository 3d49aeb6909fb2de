"""From token losses to one number; denominators count the response tokens of the whole minibatch."""

from torch import Tensor

from cppo_lab.objectives.coordinates import AggregationSpec


def denominator(response_mask: Tensor, aggregation: AggregationSpec) -> Tensor:
    """What the summed loss of a whole minibatch is divided by (scalar, float32); at least 1.

    Compute it once per minibatch, over all micro-batches, from the mask of response tokens [B, T] (never
    from a trust region's mask). token_mean counts tokens; the others count rows that have any, times H for
    sequence_mean_token_sum_norm. Raises ValueError when that needs a horizon that was not filled in.
    """
    if aggregation.kind == "token_mean":
        return response_mask.sum().float().clamp(min=1)
    rows = response_mask.any(-1).sum().float().clamp(min=1)
    if aggregation.kind == "sequence_mean_token_sum_norm":
        if aggregation.horizon is None:
            raise ValueError(
                "aggregation.horizon = null: fill in the maximum response length with AlgoSpec.with_horizon"
            )
        return rows * aggregation.horizon
    return rows


def aggregate(
    loss: Tensor, response_mask: Tensor, aggregation: AggregationSpec, denominator: Tensor
) -> Tensor:
    """The share of these rows in the minibatch's loss (scalar); summed over micro-batches it is the loss.

    `loss` [B, T] may be a micro-batch; `denominator` is that of the whole minibatch.
    """
    inside = loss.masked_fill(~response_mask, 0.0)
    if aggregation.kind == "sequence_mean_token_mean":
        lengths = response_mask.sum(-1).clamp(min=1)
        return (inside.sum(-1) / lengths).sum() / denominator
    return inside.sum() / denominator

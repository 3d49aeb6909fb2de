"""Random batches for comparisons with other libraries, and the lab's own loss and gradient on them."""

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cppo_lab.objectives import TokenBatch, aggregate, batch_statistics, denominator, token_objective
from cppo_lab.objectives.spec import AggregationSpec, AlgoSpec

SHAPES = ((256, 12), (64, 48), (16, 160), (24, 1))
SEEDS = range(500)
BATCHES = len(SEEDS) * len(SHAPES)
"""500 batches of each shape: 180 thousand responses and 2.1 million response tokens per comparison."""
FEW = range(8)
"""Seeds enough to show that two things differ."""
HORIZON = 200
"""H of sums that are divided by a fixed length; wider than any batch."""
NEAREST_TO_ONE = 1e-3
"""No probability is above exp(-1e-3), where codes that add an epsilon to 1 - p disagree with the formula."""

Result = tuple[Tensor, Tensor]
"""A loss (scalar) and its gradient with respect to the log-probabilities [B, T]."""


def random_batch(seed: int, rows: int, columns: int) -> TokenBatch:
    """One batch in float64: ragged rows, half of them with holes, a sixth with advantage zero; none is empty.

    Row by row, the distance of pi_old from mu runs from 1e-4 to 1 and that of pi from pi_old from 0.01 to
    2.5 (standard deviations of the log-ratio). What lies outside the mask is finite and meaningless.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    def noise(smallest: float, largest: float) -> Tensor:
        scale = 10 ** uniform(rows, 1, low=smallest, high=largest)
        return scale * torch.randn(rows, columns, generator=generator, dtype=torch.float64)

    rollout = uniform(rows, columns, low=-4).clamp(max=-NEAREST_TO_ONE)
    old = (rollout + noise(-4, 0)).clamp(max=-NEAREST_TO_ONE)
    logp = (old + noise(-2, 0.4)).clamp(max=-NEAREST_TO_ONE)
    mask = torch.arange(columns) < torch.randint(1, columns + 1, (rows, 1), generator=generator)
    holes = (uniform(rows, columns) < 0.2) & (uniform(rows, 1) < 0.5)
    holes[:, 0] = False
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    return TokenBatch(
        logp=logp.requires_grad_(),
        rollout_logp=rollout,
        advantages=advantages.masked_fill(uniform(rows) < 1 / 6, 0.0),
        response_mask=mask & ~holes,
        old_logp=old,
        reference_logp=(old + noise(-2, 0)).clamp(max=-NEAREST_TO_ONE),
    )


@functools.cache
def random_batches(seeds: range = SEEDS) -> tuple[TokenBatch, ...]:
    """Every shape with every seed, always the same and drawn once; to be changed by `replace` only."""
    return tuple(random_batch(seed, rows, columns) for seed in seeds for rows, columns in SHAPES)


def with_aggregation(algo: AlgoSpec, kind: str) -> AlgoSpec:
    horizon = HORIZON if kind == "sequence_mean_token_sum_norm" else None
    return algo.replace(aggregation=AggregationSpec(kind=kind, horizon=horizon))  # type: ignore[arg-type]


def with_region(algo: AlgoSpec, **changes: Any) -> AlgoSpec:
    return algo.replace(trust_region=algo.trust_region.replace(**changes))


def without_row(batch: TokenBatch, row: int = 0) -> TokenBatch:
    """The batch with one row that has no response tokens."""
    empty = torch.arange(len(batch.response_mask)) == row
    return replace(batch, response_mask=batch.response_mask & ~empty.unsqueeze(-1))


def gradient(loss: Tensor, batch: TokenBatch) -> Result:
    return loss.detach(), torch.autograd.grad(loss, batch.logp)[0]


def ours(batch: TokenBatch, algo: AlgoSpec) -> Result:
    """The lab's loss of the whole batch and its gradient."""
    total = denominator(batch.response_mask, algo.aggregation)
    objective = token_objective(batch, algo, statistics=batch_statistics([batch], algo))
    return gradient(aggregate(objective.loss, batch.response_mask, algo.aggregation, total), batch)


def assert_same(mine: Tensor, theirs: Tensor, tolerance: float = 1e-10) -> None:
    """Equal to `tolerance`, relative to the largest entry, or to 1e-4 where all entries are smaller."""
    size = max(1e-4, float(theirs.detach().abs().max()))
    torch.testing.assert_close(mine / size, theirs / size, rtol=0.0, atol=tolerance)


def assert_both_same(mine: Result, theirs: Result, tolerance: float = 1e-10) -> None:
    """Loss and gradient agree."""
    for own, other in zip(mine, theirs, strict=True):
        assert_same(own, other, tolerance)


def assert_differ(mine: Tensor, theirs: Tensor, at_least: float) -> None:
    """Some entry differs by more than `at_least`, so that the comparison is not of two equal things."""
    assert float((mine - theirs).abs().max()) > at_least

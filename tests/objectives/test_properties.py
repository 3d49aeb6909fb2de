"""Properties that hold for every input: orderings, limits, monotonicity, invariance to layout."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.divergences import divergence
from cppo_lab.objectives.objective import TokenObjective, token_objective
from cppo_lab.objectives.spec import (
    AggregationSpec,
    AlgoSpec,
    BudgetSpec,
    DivergenceSpec,
    SurrogateSpec,
    TrustRegionSpec,
    WeightSpec,
)

VOCABULARY = 12
seeds = st.integers(0, 2**31 - 1)
deltas = st.floats(0.01, 0.6)
sizes = st.floats(0.0, 0.2)
fast = settings(max_examples=40)


def random_batch(seed: int, *, rows: int = 5, width: int = 9, scale: float = 1.5) -> TokenBatch:
    """Rows with holes, empty rows, single tokens and zero advantages, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def policy() -> Tensor:
        logits = scale * torch.randn(rows, width, VOCABULARY, generator=generator, dtype=torch.float64)
        return logits.log_softmax(-1)

    mu = policy()
    drift = torch.rand((), generator=generator).item()
    pi = (mu + drift * policy()).log_softmax(-1)
    sampled = torch.randint(VOCABULARY, (rows, width, 1), generator=generator)
    listed = mu.topk(4, dim=-1).indices
    lengths = torch.randint(0, width + 1, (rows, 1), generator=generator)
    mask = (torch.arange(width) < lengths) & (torch.rand(rows, width, generator=generator) < 0.85)
    return TokenBatch(
        logp=pi.gather(-1, sampled).squeeze(-1).requires_grad_(),
        rollout_logp=mu.gather(-1, sampled).squeeze(-1),
        advantages=torch.randint(-2, 3, (rows,), generator=generator).double(),
        response_mask=mask,
        topk=TopK(mu.gather(-1, listed), pi.gather(-1, listed), (listed == sampled).any(-1)),
        full=FullDistributions(mu, pi),
        weight_order=torch.rand(rows, width, generator=generator),
    )


def point(region: TrustRegionSpec, kind: str = "binary_tv", **parts: Any) -> AlgoSpec:
    return AlgoSpec(
        name="point",
        paper="",
        anchor="rollout",
        paper_anchor="rollout",
        divergence=DivergenceSpec(kind=kind),
        trust_region=region,
        **parts,
    )


def cppo(
    delta: float, *, weights: str = "linear", budget: str = "fixed", size: float = 0.02, **region: Any
) -> AlgoSpec:
    return point(
        TrustRegionSpec(
            kind="prefix_budget",
            delta=delta,
            weights=WeightSpec(kind=weights),
            budget=BudgetSpec(kind=budget, size=size),
            **region,
        )
    )


def dropped(batch: TokenBatch, algo: AlgoSpec) -> Tensor:
    return token_objective(batch, algo).masked


def same(first: TokenObjective, second: TokenObjective) -> None:
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.masked, second.masked)


@fast
@given(seeds, st.sampled_from(["forward", "reverse"]))
def test_divergences_grow_with_the_resolution_of_the_atoms(seed: int, direction: str) -> None:
    batch = random_batch(seed)
    arguments = (batch.logp.detach(), batch.rollout_logp, batch.response_mask, batch.topk, batch.full)
    for family in ("tv", "kl"):
        values = [
            divergence(DivergenceSpec(kind=f"{kind}_{family}", direction=direction), *arguments)
            for kind in ("binary", "topk", "exact")
        ]
        binary, topk, exact = values
        # 1e-7 is the distance kept from probability 1 by the binary KL.
        assert (binary <= topk + 1e-6).all()
        assert (topk <= exact + 1e-6).all()
        assert (binary >= 0).all()


@fast
@given(seeds, deltas)
def test_uniform_weights_without_budget_are_dppo(seed: int, delta: float) -> None:
    batch = random_batch(seed)
    dppo = point(TrustRegionSpec(kind="divergence_threshold", delta=delta))
    same(token_objective(batch, cppo(delta, weights="uniform", budget="none")), token_objective(batch, dppo))


@fast
@given(seeds, deltas, st.sampled_from(["fixed", "adaptive", "terminal"]))
def test_an_infinite_budget_leaves_the_weights_alone(seed: int, delta: float, budget: str) -> None:
    batch = random_batch(seed)
    unlimited = token_objective(batch, cppo(delta, budget=budget, size=float("inf")))
    same(unlimited, token_objective(batch, cppo(delta, budget="none")))


@fast
@given(seeds, st.sampled_from(["prefix_budget", "divergence_threshold", "sequence_max", "sequence_mean"]))
def test_an_infinite_threshold_is_no_trust_region(seed: int, kind: str) -> None:
    batch = random_batch(seed)
    key = "delta_mean" if kind == "sequence_mean" else "delta"
    none = AlgoSpec(name="pg", paper="", anchor="rollout", paper_anchor="rollout")
    for gate in ("hard", "inverse", "sapo"):
        region = TrustRegionSpec(kind=kind, gate=gate, **{key: float("inf")})
        same(token_objective(batch, point(region)), token_objective(batch, none))


@fast
@given(seeds, deltas, deltas, sizes, st.sampled_from(["fixed", "adaptive", "terminal", "none"]))
def test_masks_shrink_as_delta_grows(
    seed: int, first: float, second: float, size: float, budget: str
) -> None:
    batch = random_batch(seed)
    low, high = sorted((first, second))
    wide = dropped(batch, cppo(high, size=size, budget=budget))
    assert not (wide & ~dropped(batch, cppo(low, size=size, budget=budget))).any()


@fast
@given(seeds, deltas, sizes, sizes, st.sampled_from(["fixed", "adaptive", "terminal"]))
def test_masks_shrink_as_the_budget_grows(
    seed: int, delta: float, first: float, second: float, budget: str
) -> None:
    batch = random_batch(seed)
    low, high = sorted((first, second))
    wide = dropped(batch, cppo(delta, size=high, budget=budget))
    assert not (wide & ~dropped(batch, cppo(delta, size=low, budget=budget))).any()


@fast
@given(seeds, deltas, sizes)
def test_kept_tokens_that_move_away_stay_inside_the_prefix_budget(
    seed: int, delta: float, size: float
) -> None:
    batch = random_batch(seed)
    objective = token_objective(batch, cppo(delta, size=size))
    kept = batch.response_mask & ~objective.masked & ~objective.toward
    before = objective.prefix_weight - objective.weights
    assert (objective.prefix_cost <= delta + size * before + 1e-12)[kept].all()
    assert ((objective.weights * objective.divergence) <= delta)[kept].all()


@fast
@given(seeds, deltas, sizes)
def test_the_strict_form_never_keeps_more_than_the_slack_form_before_the_last_token(
    seed: int, delta: float, size: float
) -> None:
    batch = random_batch(seed)
    slack, strict = (
        point(
            TrustRegionSpec(
                kind="prefix_budget",
                delta=delta,
                weights=WeightSpec(kind="linear"),
                budget=BudgetSpec(kind="fixed", size=min(size, delta), slack=choice),
            )
        )
        for choice in ("threshold", "none")
    )
    mask = batch.response_mask
    last = mask & (mask.cumsum(-1) == mask.sum(-1, keepdim=True))
    assert not (dropped(batch, slack) & ~dropped(batch, strict) & ~last).any()


@fast
@given(seeds, deltas, sizes, st.sampled_from(["inverse", "sapo"]))
def test_soft_gates_open_exactly_where_the_hard_gate_keeps(
    seed: int, delta: float, size: float, gate: str
) -> None:
    batch = random_batch(seed)
    hard = token_objective(batch, cppo(delta, size=size))
    soft = token_objective(batch, cppo(delta, size=size, gate=gate))
    assert torch.equal(hard.masked, soft.masked)
    near = (soft.violation - 1).abs() < 1e-9
    assert torch.equal(((soft.gate < 1) & batch.response_mask)[~near], hard.masked[~near])
    assert ((soft.gate >= 0) & (soft.gate <= 1)).all()


@fast
@given(seeds, sizes)
def test_tokens_that_move_toward_the_anchor_keep_their_gradient_and_still_cost(
    seed: int, size: float
) -> None:
    batch = random_batch(seed)
    objective = token_objective(batch, cppo(0.05, size=size))
    assert (objective.gate[objective.toward] == 1).all()
    cost = (objective.weights * objective.divergence).sum(-1)
    torch.testing.assert_close(objective.prefix_cost.amax(-1), cost)


METHODS = {
    "cppo": cppo(0.1, budget="adaptive"),
    "cppo_topk": cppo(0.1, budget="adaptive").replace(divergence=DivergenceSpec(kind="topk_tv")),
    "cppo_shuffled": cppo(0.1, weights="shuffled", budget="terminal"),
    "trm": point(TrustRegionSpec(kind="sequence_max_mean", delta=0.5, delta_mean=0.1), kind="k3"),
    "gspo": AlgoSpec(
        name="gspo",
        paper="",
        anchor="rollout",
        paper_anchor="rollout",
        trust_region=TrustRegionSpec(kind="ratio_clip", clip_low=0.1, clip_high=0.1),
        surrogate=SurrogateSpec(kind="clipped", ratio="sequence"),
    ),
    "minpro": AlgoSpec(
        name="minpro",
        paper="",
        anchor="rollout",
        paper_anchor="rollout",
        surrogate=SurrogateSpec(kind="truncated", ratio="prefix_minimum", ratio_low=0.8, ratio_high=1.28),
    ),
    "ctpo": AlgoSpec(
        name="ctpo",
        paper="",
        anchor="rollout",
        paper_anchor="rollout",
        trust_region=TrustRegionSpec(
            kind="ratio_clip", clip_low=0.1, clip_high=0.1, clip_space="log", clip_power=0.5, dual_clip=0.2
        ),
        surrogate=SurrogateSpec(kind="clipped", ratio="prefix_product"),
    ),
}
AGGREGATIONS = [
    AggregationSpec(kind="token_mean"),
    AggregationSpec(kind="sequence_mean_token_mean"),
    AggregationSpec(kind="sequence_mean_token_sum"),
    AggregationSpec(kind="sequence_mean_token_sum_norm", horizon=7),
]


def padded_on_both_sides(batch: TokenBatch, left: int, right: int) -> TokenBatch:
    def pad(values: Tensor, junk: float) -> Tensor:
        sides = (0, 0, left, right) if values.dim() == 3 else (left, right)
        if values.dtype == torch.bool:
            return torch.nn.functional.pad(values.double(), sides) > 0
        return torch.nn.functional.pad(values, sides, value=junk)

    assert batch.topk is not None
    return TokenBatch(
        logp=pad(batch.logp.detach(), float("nan")).requires_grad_(),
        rollout_logp=pad(batch.rollout_logp, float("-inf")),
        advantages=batch.advantages,
        response_mask=pad(batch.response_mask, 0),
        topk=TopK(*(pad(getattr(batch.topk, name), float("nan")) for name in ("rollout_logp", "policy_logp")),
                  pad(batch.topk.contains_sampled, 0)),
        weight_order=pad(batch.weight_order, 0.5),
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
@fast
@given(seed=seeds, left=st.integers(0, 3), right=st.integers(0, 3))
def test_permuting_padding_and_splitting_change_nothing(name: str, seed: int, left: int, right: int) -> None:
    algo, batch = METHODS[name], random_batch(seed)
    order = torch.randperm(batch.logp.shape[0], generator=torch.Generator().manual_seed(seed))
    moved = padded_on_both_sides(batch, left, right).rows(order)
    pieces = [moved.rows(rows) for rows in torch.arange(len(order)).split(2)]
    whole = token_objective(batch, algo)
    parts = [token_objective(piece, algo) for piece in pieces]
    width = batch.logp.shape[1]
    loss = torch.cat([part.loss for part in parts])[:, left : left + width]
    torch.testing.assert_close(loss, whole.loss[order], rtol=1e-12, atol=1e-12)
    masked = torch.cat([part.masked for part in parts])[:, left : left + width]
    assert torch.equal(masked, whole.masked[order])
    for spec in AGGREGATIONS:
        total = denominator(batch.response_mask, spec)
        expected = aggregate(whole.loss, batch.response_mask, spec, total)
        found = sum(
            aggregate(p.loss, q.response_mask, spec, total) for p, q in zip(parts, pieces, strict=True)
        )
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
@fast
@given(seed=seeds)
def test_nothing_but_the_log_probability_carries_gradient(name: str, seed: int) -> None:
    batch = random_batch(seed)
    others = ("rollout_logp", "advantages")
    tracked = replace(batch, **{key: getattr(batch, key).clone().requires_grad_() for key in others})
    objective = token_objective(tracked, METHODS[name])
    for tensor in (objective.gate, objective.divergence, objective.weights, objective.threshold):
        assert tensor is None or not tensor.requires_grad
    grads = torch.autograd.grad(
        objective.loss.sum(), [getattr(tracked, key) for key in others], allow_unused=True
    )
    assert all(grad is None or not grad.any() for grad in grads)


@fast
@given(seeds)
def test_equal_bounds_make_clip_higher_the_symmetric_clip_and_far_ones_no_clip(seed: int) -> None:
    batch = random_batch(seed)
    none = AlgoSpec(name="pg", paper="", anchor="rollout", paper_anchor="rollout")
    wide = none.replace(
        trust_region=TrustRegionSpec(kind="ratio_clip", clip_low=1.0, clip_high=float("inf")),
        surrogate=SurrogateSpec(kind="clipped"),
    )
    torch.testing.assert_close(token_objective(batch, wide).loss, token_objective(batch, none).loss)

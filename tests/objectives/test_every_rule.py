"""What must hold for every rule that is registered, whatever its parameters."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from drawn_methods import EVERY_RULE, method_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cppo_lab.objectives.advantages import token_advantages
from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.describe import rules_of, summary
from cppo_lab.objectives.objective import TokenObjective, batch_statistics, token_objective
from cppo_lab.objectives.spec import AlgoSpec, neutral_tree

seeds = st.integers(0, 2**31 - 1)
some = settings(max_examples=12, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
VOCABULARY = 30
WITH_LOSS = [rule for rule in EVERY_RULE if not rule[0].startswith(("advantage", "aggregation"))]
ADVANTAGES = [rule for rule in EVERY_RULE if rule[0].startswith("advantage")]
AGGREGATIONS = [rule for rule in EVERY_RULE if rule[0].startswith("aggregation")]


def batch_for(algo: AlgoSpec, seed: int, rows: int = 4, width: int = 7) -> TokenBatch:
    """Rows with holes, empty rows and zero advantages, with every tensor that any method can ask for."""
    generator = torch.Generator().manual_seed(seed)

    def policy() -> Tensor:
        logits = torch.randn(rows, width, VOCABULARY, generator=generator, dtype=torch.float64)
        return logits.log_softmax(-1)

    mu, pi, old, reference = policy(), policy(), policy(), policy()
    sampled = torch.randint(VOCABULARY, (rows, width, 1), generator=generator)
    listed = mu.topk(min(algo.divergence.k, VOCABULARY), dim=-1).indices
    topk = TopK(mu.gather(-1, listed), pi.gather(-1, listed), (listed == sampled).any(-1))
    of_sampled = [values.gather(-1, sampled).squeeze(-1) for values in (pi, mu, old, reference)]
    return TokenBatch(
        logp=of_sampled[0].requires_grad_(),
        rollout_logp=of_sampled[1],
        old_logp=of_sampled[2],
        reference_logp=of_sampled[3],
        advantages=torch.randint(-2, 3, (rows,), generator=generator).double(),
        response_mask=torch.rand(rows, width, generator=generator) < 0.75,
        topk=topk,
        full=FullDistributions(mu, pi),
        weight_order=torch.rand(rows, width, generator=generator),
        rollout_entropy=torch.rand(rows, width, generator=generator),
        version_lag=torch.randint(0, 5, (rows, width), generator=generator),
        selection_order=torch.rand(rows, width, generator=generator),
        prompt=torch.arange(rows) // 2,
        collision=pi.exp().square().sum(-1),
        vocabulary=VOCABULARY,
    )


def whole_objective(batch: TokenBatch, algo: AlgoSpec) -> TokenObjective:
    """The objective of a batch that is a whole minibatch."""
    return token_objective(batch, algo, statistics=batch_statistics([batch], algo))


def moved(batch: TokenBatch, order: Tensor, left: int) -> TokenBatch:
    """The rows in another order, with columns of junk before and behind."""

    def pad(values: Tensor) -> Tensor:
        sides = (0, 0, left, 2) if values.dim() == 3 else (left, 2)
        if values.dtype == torch.bool:
            return torch.nn.functional.pad(values[order].double(), sides) > 0
        if not values.is_floating_point():
            return torch.nn.functional.pad(values[order], sides, value=-7)
        return torch.nn.functional.pad(values[order].detach(), sides, value=float("nan"))

    def padded(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[order] if value.dim() == 1 else pad(value)
        if isinstance(value, int):
            return value
        return replace(value, **{f.name: pad(getattr(value, f.name)) for f in fields(value)})

    present = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return TokenBatch(**{name: padded(value) for name, value in present.items() if value is not None})


@pytest.mark.parametrize(("key", "name"), WITH_LOSS)
@some
@given(data=st.data(), seed=seeds, left=st.integers(0, 3))
def test_layout_changes_nothing_and_gradients_stay_inside_the_mask(
    key: str, name: str, data: st.DataObject, seed: int, left: int
) -> None:
    algo = data.draw(method_with(key, name))
    batch = batch_for(algo, seed)
    whole = whole_objective(batch, algo)
    whole.loss.sum().backward()
    assert batch.logp.grad is not None
    assert torch.isfinite(whole.loss).all()
    assert torch.isfinite(batch.logp.grad).all()
    assert (batch.logp.grad[~batch.response_mask] == 0).all()
    assert (whole.loss[~batch.response_mask] == 0).all()
    least = -1 if algo.trust_region.gate == "reflect" else 0
    assert ((whole.gate >= least) & (whole.gate <= 1)).all()
    order = torch.randperm(len(batch.logp), generator=torch.Generator().manual_seed(seed))
    elsewhere = moved(batch, order, left)
    micro_batches = [elsewhere.rows(rows) for rows in torch.arange(len(order)).split(3)]
    statistics = batch_statistics(micro_batches, algo)
    parts = [token_objective(part, algo, statistics=statistics) for part in micro_batches]
    columns = slice(left, left + batch.logp.shape[1])
    for part in ("loss", "gate", "masked"):
        found = torch.cat([getattr(each, part) for each in parts])[:, columns]
        torch.testing.assert_close(found, getattr(whole, part)[order], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("key", "name"), WITH_LOSS)
@some
@given(data=st.data(), seed=seeds)
def test_the_requirements_name_every_tensor_that_is_read(
    key: str, name: str, data: st.DataObject, seed: int
) -> None:
    algo = data.draw(method_with(key, name))
    batch = batch_for(algo, seed)
    needs = algo.requirements
    bare = replace(
        batch,
        old_logp=batch.old_logp if needs.needs_old_logp else None,
        reference_logp=batch.reference_logp if needs.needs_reference else None,
        topk=batch.topk if needs.needs_topk else None,
        full=batch.full if needs.needs_full_distribution else None,
        weight_order=batch.weight_order if needs.needs_weight_order else None,
        rollout_entropy=batch.rollout_entropy if needs.needs_rollout_entropy else None,
        version_lag=batch.version_lag if needs.needs_version_lag else None,
        selection_order=batch.selection_order if needs.needs_selection_order else None,
        prompt=batch.prompt if needs.needs_prompt else None,
        collision=batch.collision if needs.needs_collision else None,
    )
    assert torch.equal(whole_objective(bare, algo).loss, whole_objective(batch, algo).loss)


@pytest.mark.parametrize(("key", "name"), ADVANTAGES)
@some
@given(data=st.data(), seed=seeds)
def test_advantages_are_finite_and_follow_the_order_of_the_prompts(
    key: str, name: str, data: st.DataObject, seed: int
) -> None:
    spec = data.draw(method_with(key, name)).advantage
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 3, (3, 4), generator=generator).double()
    mask = torch.rand(12, 5, generator=generator) < 0.8
    values = torch.rand(12, 5, generator=generator, dtype=torch.float64)
    found, _ = token_advantages(rewards, mask, spec, values=values)
    assert torch.isfinite(found).all()
    assert (found[~mask] == 0).all()
    order = torch.tensor([2, 0, 1])
    rows = torch.arange(12).view(3, 4)[order].flatten()
    again, _ = token_advantages(rewards[order], mask[rows], spec, values=values[rows])
    torch.testing.assert_close(again, found[rows], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("key", "name"), AGGREGATIONS)
@some
@given(data=st.data(), seed=seeds)
def test_micro_batches_add_up_to_the_whole(key: str, name: str, data: st.DataObject, seed: int) -> None:
    spec = data.draw(method_with(key, name).map(lambda algo: algo.with_horizon(9))).aggregation
    generator = torch.Generator().manual_seed(seed)
    losses = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 5, generator=generator) < 0.5
    total = denominator(mask, spec)
    assert total >= 1
    parts = [aggregate(losses[i : i + 2], mask[i : i + 2], spec, total) for i in range(0, 6, 2)]
    torch.testing.assert_close(sum(parts), aggregate(losses, mask, spec, total), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("key", "name"), EVERY_RULE)
@some
@given(data=st.data())
def test_a_method_survives_its_tree_and_shows_what_it_selects(
    key: str, name: str, data: st.DataObject
) -> None:
    algo = data.draw(method_with(key, name))
    again = AlgoSpec.build(algo.as_dict())
    assert again == algo
    assert hash(again) == hash(algo)
    assert algo.as_dict().keys() == neutral_tree().keys()
    assert all(isinstance(text, str) and text for text in summary(algo).values())


def test_every_rule_says_in_one_line_what_it_does() -> None:
    for _, rules in rules_of():
        for entry in rules.entries():
            assert entry.about, (rules.kind, entry.name)
            assert "\n" not in entry.about
            assert not entry.about.endswith(".")
            for each in entry.part.parameters:
                assert each.param.about.endswith(".") or each.is_required, (entry.name, each.name)

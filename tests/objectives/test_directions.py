"""Which tokens a threshold may drop: the predicted change against the divergence after a real step, and the three
directions side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cppo_lab.diagnostics.metrics import Diagnostics
from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.objective import TokenObjective, token_objective
from cppo_lab.objectives.spec import AlgoSpec, DivergenceSpec, RegulariserSpec, TrustRegionSpec

seeds = st.integers(0, 2**31 - 1)
VOCABULARY = 12
STEP = 1e-5


def point(divergence: dict[str, Any], **region: Any) -> AlgoSpec:
    return AlgoSpec(
        name="drawn",
        paper="",
        anchor="rollout",
        paper_anchor="rollout",
        divergence=DivergenceSpec(**divergence),
        trust_region=TrustRegionSpec(kind="divergence_threshold", **({"delta": 1e-9} | region)),
    )


def batch_of(mu: Tensor, logits: Tensor, sampled: Tensor, k: int, advantage: float = 1.0) -> TokenBatch:
    """Distributions [1, T, V], mu in logs, and the tokens sampled from it [1, T]."""
    pi = logits.log_softmax(-1)
    listed = mu.topk(k, dim=-1).indices
    of_sampled = [values.gather(-1, sampled.unsqueeze(-1)).squeeze(-1) for values in (pi, mu)]
    return TokenBatch(
        logp=of_sampled[0],
        rollout_logp=of_sampled[1],
        advantages=torch.tensor([advantage], dtype=torch.float64),
        response_mask=torch.ones_like(sampled, dtype=torch.bool),
        topk=TopK(mu.gather(-1, listed), pi.gather(-1, listed), (listed == sampled.unsqueeze(-1)).any(-1)),
        full=FullDistributions(mu, pi),
        collision=pi.exp().square().sum(-1),
        vocabulary=mu.shape[-1],
    )


def drawn(
    seed: int, positions: int = 6, vocabulary: int = VOCABULARY, spread: float = 1.5
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def logits() -> Tensor:
        return spread * torch.randn(1, positions, vocabulary, generator=generator, dtype=torch.float64)

    mu = logits().log_softmax(-1)
    sampled = torch.distributions.Categorical(logits=mu).probs.cumsum(-1)
    draws = torch.rand(1, positions, 1, generator=generator, dtype=torch.float64)
    return mu, mu + 0.5 * logits(), (draws > sampled).sum(-1).clamp(max=vocabulary - 1)


def after_a_step(logits: Tensor, sampled: Tensor, size: float) -> Tensor:
    """The logits after one policy-gradient step of `size` on the sampled tokens, advantage and ratio 1."""
    return logits + size * (torch.nn.functional.one_hot(sampled, logits.shape[-1]) - logits.softmax(-1))


def measured(batch: TokenBatch, algo: AlgoSpec) -> Tensor:
    found = token_objective(batch, algo).divergence
    assert found is not None
    return found


@pytest.mark.parametrize(
    "divergence",
    [
        {"kind": "exact_kl"},
        {"kind": "exact_tv"},
        {"kind": "exact_kl", "direction": "reverse"},
        {"kind": "topk_kl", "k": 4},
        {"kind": "topk_tv", "k": 4},
        {"kind": "topk_kl", "k": 4, "direction": "reverse"},
        {"kind": "topk_kl", "k": 4, "atoms": "replace"},
        {"kind": "topk_kl", "k": VOCABULARY},
    ],
    ids=lambda each: ", ".join(map(str, each.values())),
)
@settings(max_examples=25)
@given(seed=seeds)
def test_the_predicted_change_is_the_derivative_of_the_divergence(
    divergence: dict[str, Any], seed: int
) -> None:
    tail = {"tail": "second_moment"} if divergence["kind"].startswith("topk") else {}
    algo = point(divergence, direction="predicted", **tail)
    mu, logits, sampled = drawn(seed)
    k = divergence.get("k", 4)
    change = token_objective(batch_of(mu, logits, sampled, k), algo).predicted_change
    assert change is not None
    up, down = (
        measured(batch_of(mu, after_a_step(logits, sampled, size), sampled, k), algo)
        for size in (STEP, -STEP)
    )
    torch.testing.assert_close(change, (up - down) / (2 * STEP), rtol=1e-5, atol=1e-8)


def test_uniform_and_aggregated_tails_bound_the_exact_one() -> None:
    for seed in range(20):
        mu, logits, sampled = drawn(seed)
        batch = batch_of(mu, logits, sampled, 4)
        uniform, exact, aggregated = (
            token_objective(
                batch, point({"kind": "topk_kl", "k": 4}, direction="predicted", tail=tail)
            ).predicted_change
            for tail in ("uniform", "second_moment", "aggregated")
        )
        assert uniform is not None
        assert exact is not None
        assert aggregated is not None
        assert (torch.minimum(uniform, aggregated) <= exact + 1e-12).all()
        assert (exact <= torch.maximum(uniform, aggregated) + 1e-12).all()


def test_the_ratio_is_more_often_wrong_about_the_whole_divergence_than_a_prediction_from_the_top_k() -> None:
    mu, logits, sampled = drawn(0, positions=1500, vocabulary=200)
    batch = batch_of(mu, logits, sampled, 20)

    def outward(tail: str | None) -> Tensor:
        if tail is None:
            divergence, region = {"kind": "exact_kl"}, {}
        else:
            divergence, region = {"kind": "topk_kl", "k": 20}, {"tail": tail}
        found = token_objective(batch, point(divergence, direction="predicted", **region)).predicted_change
        assert found is not None
        return found > 0

    truth = outward(None)
    wrong = {tail: int((outward(tail) != truth).sum()) for tail in ("uniform", "aggregated", "second_moment")}
    by_ratio = int(((batch.logp > batch.rollout_logp) != truth).sum())
    assert wrong["second_moment"] <= wrong["uniform"] < 0.25 * by_ratio
    assert wrong["aggregated"] < by_ratio


def by_direction(direction: str, advantage: float, **more: Any) -> TokenObjective:
    mu, logits, sampled = drawn(3, positions=40)
    batch = batch_of(mu, logits, sampled, 4, advantage)
    return token_objective(batch, point({"kind": "topk_kl", "k": 4}, direction=direction, delta=0.02, **more))


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_direction_drops_among_the_tokens_beyond_the_threshold(advantage: float) -> None:
    ratio, predicted, none = (by_direction(each, advantage) for each in ("ratio", "predicted", "none"))
    assert none.divergence is not None
    assert predicted.predicted_change is not None
    beyond = none.divergence > 0.02
    assert torch.equal(none.masked, beyond)
    assert torch.equal(ratio.masked, beyond & ~ratio.toward)
    assert torch.equal(predicted.masked, beyond & (advantage * predicted.predicted_change > 0))
    assert not torch.equal(predicted.masked, ratio.masked)


def test_only_without_a_direction_are_tokens_dropped_that_have_no_advantage() -> None:
    dropped = {each: int(by_direction(each, 0.0).masked.sum()) for each in ("ratio", "predicted", "none")}
    assert dropped["ratio"] == dropped["predicted"] == 0
    assert dropped["none"] > 0


def test_a_soft_gate_attenuates_the_tokens_that_the_direction_names() -> None:
    hard, soft = (by_direction("predicted", 1.0, gate=gate) for gate in ("hard", "inverse"))
    assert torch.equal(hard.masked, soft.masked)
    assert torch.equal(soft.gate < 1, hard.gate < 1)
    assert (soft.gate[hard.masked] > 0).all()


def test_masked_shares_are_split_by_direction_where_others_than_outward_tokens_are_dropped() -> None:
    mu, logits, sampled = drawn(3, positions=40)
    batch = batch_of(mu, logits, sampled, 4)
    found = {}
    for direction in ("ratio", "predicted", "none"):
        objective = by_direction(direction, 1.0)
        diagnostics = Diagnostics()
        diagnostics.update(batch, objective)
        found[direction] = diagnostics.result()
    assert "mask/share_toward" not in found["ratio"]
    none = by_direction("none", 1.0)
    away = ~none.toward
    assert found["none"]["mask/share_away"] == pytest.approx(float(none.masked[away].double().mean()))
    assert found["none"]["mask/share_toward"] == pytest.approx(float(none.masked[~away].double().mean()))
    assert "mask/direction_turned" not in found["none"]
    predicted = by_direction("predicted", 1.0)
    assert predicted.predicted_change is not None
    turned = (predicted.predicted_change > 0) != away
    assert found["predicted"]["mask/direction_turned"] == pytest.approx(float(turned.double().mean()))
    assert found["predicted"]["mask/direction_undecided"] == 0


@pytest.mark.parametrize(
    ("divergence", "region", "said"),
    [
        ({"kind": "binary_tv"}, {"direction": "predicted"}, "same test as ratio"),
        ({"kind": "k3"}, {"direction": "predicted"}, "same test as ratio"),
        (
            {"kind": "ratio_tv"},
            {"direction": "predicted"},
            "needs divergence.kind topk_kl, topk_tv, exact_kl",
        ),
        ({"kind": "topk_kl", "direction": "both"}, {"direction": "predicted"}, "must be forward or reverse"),
        ({"kind": "exact_kl"}, {"direction": "predicted", "tail": "aggregated"}, "has no tail"),
        ({"kind": "topk_kl"}, {"tail": "aggregated"}, "only trust_region.direction predicted reads it"),
        ({"kind": "topk_kl"}, {"direction": "sideways"}, "must be one of ratio, predicted, none"),
        ({"kind": "topk_kl"}, {"delta_negative": 0.0}, "must be greater than 0"),
    ],
)
def test_a_direction_that_makes_no_sense_is_refused(
    divergence: dict[str, Any], region: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        point(divergence, **region)


def test_a_direction_needs_a_region_that_has_one() -> None:
    with pytest.raises(ValueError, match=r"needs trust_region\.kind divergence_threshold"):
        TrustRegionSpec(kind="prefix_budget", delta=0.1, direction="none")


@pytest.mark.parametrize(("tail", "missing"), [("uniform", "vocabulary"), ("second_moment", "collision")])
def test_a_tensor_that_the_tail_needs_is_asked_for(tail: str, missing: str) -> None:
    mu, logits, sampled = drawn(0)
    batch = replace(batch_of(mu, logits, sampled, 4), **{missing: None})
    with pytest.raises(ValueError, match=f"TokenBatch.{missing}"):
        token_objective(batch, point({"kind": "topk_kl", "k": 4}, direction="predicted", tail=tail))


def penalised(tokens: str, coefficient: float = 0.3) -> tuple[TokenObjective, Tensor, Tensor]:
    mu, logits, sampled = drawn(3, positions=40)
    batch = batch_of(mu, logits, sampled, 4)
    batch.logp.requires_grad_()
    algo = point({"kind": "binary_tv"}, delta=0.05).replace(
        regulariser=RegulariserSpec(anchor_coefficient=coefficient, anchor_tokens=tokens)
    )
    objective = token_objective(batch, algo)
    (gradient,) = torch.autograd.grad(objective.loss.sum(), batch.logp)
    return objective, gradient, (batch.logp - batch.rollout_logp).detach()


def test_the_penalty_is_the_only_force_on_a_dropped_token() -> None:
    objective, gradient, log_ratio = penalised("all")
    assert objective.masked.any()
    torch.testing.assert_close(gradient[objective.masked], 0.6 * log_ratio[objective.masked])
    kept = ~objective.masked
    torch.testing.assert_close(gradient[kept], (0.6 * log_ratio - objective.ratio)[kept])


def test_the_penalty_can_be_on_kept_tokens_alone() -> None:
    objective, gradient, _ = penalised("kept")
    assert objective.masked.any()
    assert (gradient[objective.masked] == 0).all()
    assert torch.equal(gradient[~objective.masked], penalised("all")[1][~objective.masked])


def test_the_tokens_of_a_penalty_that_is_off_are_refused() -> None:
    with pytest.raises(ValueError, match="must be all while"):
        RegulariserSpec(anchor_tokens="kept")

"""Edge cases of the numbers: single tokens, empty rows, impossible tokens, overflow, low precision."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cppo_lab.objectives import TokenBatch, aggregate, denominator, divergences, method, token_objective
from cppo_lab.objectives.batch import FullDistributions, TopK
from cppo_lab.objectives.divergences import divergence
from cppo_lab.objectives.prefixes import row_quantile
from cppo_lab.objectives.spec import DivergenceSpec, WeightSpec
from cppo_lab.objectives.weights import (
    evaluated_to_be_admitted,
    position_weights,
    theorem_one_admits,
    weights,
)

pytest.importorskip("yaml")

BINARY = [
    "pg", "grpo", "cispo", "minpro", "gspo", "gmpo", "sapo", "dppo_tv", "dppo_kl", "trm_max", "trm_avg",
    "trm_max_avg", "cppo_binary", "drpo", "ctpo", "reinforce",
]  # fmt: skip
INF = float("inf")


def batch_of(
    logp: list[list[float]],
    rollout: list[list[float]],
    advantages: list[float],
    mask: list[list[int]] | None = None,
) -> TokenBatch:
    values = torch.tensor(logp)
    return TokenBatch(
        logp=values.requires_grad_(),
        rollout_logp=torch.tensor(rollout),
        old_logp=torch.tensor(rollout),
        advantages=torch.tensor(advantages),
        response_mask=torch.ones_like(values, dtype=torch.bool) if mask is None else torch.tensor(mask) > 0,
    )


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize(
    ("logp", "rollout"),
    [([-INF, -1.0], [-1.0, -1.0]), ([-1.0, -1.0], [-INF, -1.0]), ([-INF, -1.0], [-INF, -1.0])],
    ids=["impossible under pi", "impossible under mu", "impossible under both"],
)
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_impossible_tokens_give_finite_losses_and_gradients(
    name: str, logp: list[float], rollout: list[float], advantage: float
) -> None:
    batch = batch_of([logp], [rollout], [advantage])
    objective = token_objective(batch, method(name))
    objective.loss.sum().backward()
    assert torch.isfinite(objective.loss).all()
    assert torch.isfinite(batch.logp.grad).all()
    if logp[0] == -INF:
        assert batch.logp.grad[0, 0] == 0


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_ratios_that_would_overflow_are_clamped_and_counted(name: str, advantage: float) -> None:
    batch = batch_of([[-0.5, -200.0]], [[-300.0, -0.5]], [advantage])
    objective = token_objective(batch, method(name))
    objective.loss.sum().backward()
    assert torch.isfinite(objective.loss).all()
    assert torch.isfinite(batch.logp.grad).all()
    assert objective.clamped.tolist() == [[True, True]]
    assert objective.log_ratio.tolist() == [[20.0, -20.0]]


@pytest.mark.parametrize("name", BINARY)
def test_rows_without_response_tokens_change_nothing(name: str) -> None:
    algo = method(name)
    alone = batch_of([[-0.4, -1.2]], [[-0.6, -1.0]], [1.0])
    among = batch_of(
        [[float("nan")] * 2, [-0.4, -1.2]], [[float("nan")] * 2, [-0.6, -1.0]], [3.0, 1.0], [[0, 0], [1, 1]]
    )
    losses = []
    for batch in (alone, among):
        total = denominator(batch.response_mask, algo.aggregation)
        loss = aggregate(token_objective(batch, algo).loss, batch.response_mask, algo.aggregation, total)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == losses[1]
    assert torch.equal(among.logp.grad[1], alone.logp.grad[0])
    assert among.logp.grad[0].tolist() == [0.0, 0.0]


def test_a_batch_without_any_token_has_loss_zero() -> None:
    batch = batch_of([[-1.0]], [[-1.0]], [1.0], [[0]])
    for name in BINARY:
        algo = method(name, max_response_length=4)
        total = denominator(batch.response_mask, algo.aggregation)
        assert (
            aggregate(token_objective(batch, algo).loss, batch.response_mask, algo.aggregation, total).item()
            == 0
        )


@pytest.mark.parametrize("name", BINARY)
def test_nan_inside_the_mask_stays_visible_in_the_loss(name: str) -> None:
    batch = batch_of([[-0.5, float("nan"), -0.5]], [[-0.6, -0.6, -0.6]], [1.0])
    assert torch.isnan(token_objective(batch, method(name)).loss).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logp": torch.zeros(2)}, r"logp has shape \(2,\): must be \[B, T\]"),
        ({"logp": torch.zeros(2, 0)}, r"at least one column"),
        ({"rollout_logp": torch.zeros(2, 4)}, r"rollout_logp has shape \(2, 4\): must be \(2, 3\)"),
        ({"advantages": torch.zeros(3)}, r"advantages has shape \(3,\): must be \(2, 3\) or \(2,\)"),
        ({"response_mask": torch.ones(2, 3)}, r"response_mask has dtype torch\.float32: must be torch\.bool"),
        (
            {"topk": TopK(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5), torch.zeros(2, 3) > 0)},
            r"topk has shape",
        ),
    ],
)
def test_batches_of_unequal_shapes_are_refused(change: dict[str, object], message: str) -> None:
    parts = {
        "logp": torch.zeros(2, 3),
        "rollout_logp": torch.zeros(2, 3),
        "advantages": torch.zeros(2),
        "response_mask": torch.ones(2, 3) > 0,
    }
    with pytest.raises(ValueError, match=message):
        TokenBatch(**{**parts, **change})


@pytest.mark.parametrize(
    ("name", "missing"),
    [("grpo", "old_logp"), ("cppo", "topk"), ("icepop", "old_logp"), ("cppo_shuffled", "topk")],
)
def test_a_missing_tensor_is_named(name: str, missing: str) -> None:
    batch = replace(batch_of([[-0.5]], [[-0.6]], [1.0]), old_logp=None)
    with pytest.raises(ValueError, match=missing):
        token_objective(batch, method(name))


def test_a_response_of_one_token_meets_the_token_level_test_only() -> None:
    algo = method("cppo_binary")
    kept = token_objective(batch_of([[-0.50]], [[-0.55]], [1.0]), algo)
    assert kept.weights.tolist() == [[1.0]]
    assert kept.gate.tolist() == [[1.0]]
    cut = token_objective(batch_of([[-0.1]], [[-1.0]], [1.0]), algo)
    assert cut.masked_by_threshold.tolist() == [[True]]


def test_advantages_of_zero_are_never_masked_by_the_token_rules() -> None:
    batch = batch_of([[-0.1, -3.0]], [[-3.0, -0.1]], [0.0])
    for name in ("dppo_tv", "cppo_binary", "grpo"):
        objective = token_objective(batch, method(name))
        assert not objective.masked.any()
        assert objective.loss.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    logp, rollout = -torch.rand(2, 4, 2048, generator=generator)
    logp, rollout = logp.to(dtype), rollout.to(dtype)
    batch = TokenBatch(logp.requires_grad_(), rollout, torch.ones(4).to(dtype), torch.ones(4, 2048) > 0)
    wide = replace(
        batch,
        logp=logp.detach().float().requires_grad_(),
        rollout_logp=rollout.float(),
        advantages=torch.ones(4),
    )
    algo = method("cppo_binary")
    narrow_objective, wide_objective = token_objective(batch, algo), token_objective(wide, algo)
    assert narrow_objective.loss.dtype == torch.float32
    assert torch.equal(narrow_objective.masked, wide_objective.masked)
    assert torch.equal(narrow_objective.loss, wide_objective.loss)


def test_quantile_counts_response_tokens_only() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(6, 50, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 50, generator=generator) < 0.3
    mask[0] = False
    mask[1] = torch.arange(50) == 7
    found = row_quantile(values, mask, 0.9)
    assert found[0] == 0
    for row in range(1, 6):
        want = torch.quantile(values[row][mask[row]], 0.9)
        torch.testing.assert_close(found[row], want, rtol=0, atol=1e-15)


def test_fewer_tokens_than_k_make_topk_exact() -> None:
    generator = torch.Generator().manual_seed(1)
    mu, pi = torch.randn(2, 3, 4, 6, generator=generator).log_softmax(-1)
    sampled = torch.randint(6, (3, 4, 1), generator=generator)
    empty = torch.full((3, 4, 2), -INF)
    inside = torch.ones(3, 4, dtype=torch.bool)
    topk = TopK(torch.cat([mu, empty], -1), torch.cat([pi, empty], -1), inside)
    logp, rollout = pi.gather(-1, sampled).squeeze(-1), mu.gather(-1, sampled).squeeze(-1)
    full = FullDistributions(mu, pi)
    for family in ("tv", "kl"):
        reduced = divergence(DivergenceSpec(kind=f"topk_{family}"), logp, rollout, inside, topk, full)
        exact = divergence(DivergenceSpec(kind=f"exact_{family}"), logp, rollout, inside, topk, full)
        torch.testing.assert_close(reduced, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("kind", ["topk_tv", "topk_kl", "exact_kl", "binary_kl"])
def test_responses_taken_in_parts_give_the_same_divergences(
    kind: str, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    mu, pi = (torch.randn(7, 5, 30, generator=generator).log_softmax(-1) for _ in range(2))
    ids = mu.topk(20, -1).indices
    tokens = torch.randint(30, (7, 5, 1), generator=generator)
    topk = TopK(mu.gather(-1, ids), pi.gather(-1, ids), (ids == tokens).any(-1))
    logp, rollout_logp = (each.gather(-1, tokens).squeeze(-1) for each in (pi, mu))
    inputs = (logp, rollout_logp, torch.ones(7, 5, dtype=torch.bool), topk, FullDistributions(mu, pi))
    spec = DivergenceSpec(kind=kind, direction=direction)
    whole = divergence(spec, *inputs)
    # Two responses at a time, the last one alone.
    monkeypatch.setattr(divergences, "_PART_ENTRIES", 2 * 5 * 30)
    assert whole is not None
    assert torch.equal(divergence(spec, *inputs), whole)  # type: ignore[arg-type]


def test_certain_tokens_have_finite_binary_kl() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    certain, unsure = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -1e-9]])
    found = divergence(DivergenceSpec(kind="binary_kl"), certain, unsure, mask)
    assert torch.isfinite(found).all()
    assert found.max() < 1e-6


def kind_weights(kind: str, length: int, **spec: float) -> Tensor:
    return position_weights(torch.ones(1, length, dtype=torch.bool), WeightSpec(kind=kind, **spec))[0]


def test_weight_schedules_have_their_shapes() -> None:
    assert kind_weights("uniform", 3).tolist() == [1, 1, 1]
    torch.testing.assert_close(kind_weights("linear", 5), torch.tensor([1.0, 0.95, 0.9, 0.85, 0.8]))
    torch.testing.assert_close(kind_weights("reversed", 5), torch.tensor([0.8, 0.85, 0.9, 0.95, 1.0]))
    torch.testing.assert_close(kind_weights("cosine", 3, w_min=0.5), torch.tensor([1.0, 0.75, 0.5]))
    torch.testing.assert_close(kind_weights("exponential", 3, w_min=0.25), torch.tensor([1.0, 0.5, 0.25]))
    torch.testing.assert_close(kind_weights("step", 5, w_min=0.5), torch.tensor([1.0, 1.0, 0.5, 0.5, 0.5]))
    torch.testing.assert_close(
        kind_weights("remaining_horizon", 5, w_min=0.3), torch.tensor([1.0, 0.75, 0.5, 0.3, 0.3])
    )
    for kind in ("uniform", "linear", "reversed", "cosine", "exponential", "step", "remaining_horizon"):
        assert kind_weights(kind, 1).tolist() == [1.0], kind


def test_a_fixed_horizon_keeps_the_floor_past_its_end() -> None:
    weights = kind_weights("linear", 5, w_min=0.5, horizon=3)
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.75, 0.5, 0.5, 0.5]))
    weights = kind_weights("remaining_horizon", 5, w_min=0.5, horizon=3)
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.5, 0.5, 0.5, 0.5]))


@given(
    st.sampled_from([rule.name for rule in weights.values() if rule.admitted is not None]),
    st.one_of(st.just(1.0), st.floats(1e-3, 1.0)),
    st.one_of(st.just("own"), st.integers(1, 300)),
)
def test_what_a_rule_says_of_theorem_one_is_what_its_weights_say(
    kind: str, w_min: float, horizon: int | Literal["own"]
) -> None:
    floor = {"w_min": w_min} if weights[kind].reads("w_min") else {}
    spec = WeightSpec(kind=kind, horizon=horizon, **floor)
    assert theorem_one_admits(spec) == evaluated_to_be_admitted(spec)


def test_shuffled_weights_permute_the_linear_ones_within_the_response() -> None:
    mask = torch.tensor([[True, False, True, True]])
    order = torch.tensor([[0.9, 0.0, 0.1, 0.5]])
    weights = position_weights(mask, WeightSpec(kind="shuffled", w_min=0.5), order)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.0, 1.0, 0.75]]))
    with pytest.raises(ValueError, match="weight_order"):
        position_weights(mask, WeightSpec(kind="shuffled"))


@pytest.mark.parametrize(
    ("spec", "admitted"),
    [
        (WeightSpec(kind="uniform"), True),
        (WeightSpec(kind="linear", w_min=0.05), True),
        (WeightSpec(kind="linear", horizon=512), True),
        (WeightSpec(kind="reversed"), True),
        (WeightSpec(kind="remaining_horizon", w_min=0.01), True),
        (WeightSpec(kind="exponential", w_min=0.4), True),
        (WeightSpec(kind="exponential", w_min=0.3), False),  # needs w_min >= 1/e
        (WeightSpec(kind="cosine", w_min=0.8), True),
        (WeightSpec(kind="cosine", w_min=0.1), False),
        (WeightSpec(kind="step", w_min=0.8), False),
        (WeightSpec(kind="shuffled", w_min=0.8), False),
        (WeightSpec(kind="shuffled", w_min=1.0), True),
    ],
)
def test_theorem_one_admits_weights_that_fall_no_faster_than_the_horizon(
    spec: WeightSpec, admitted: bool
) -> None:
    assert theorem_one_admits(spec) is admitted

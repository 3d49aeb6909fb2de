"""Every golden vector, in float64 to 1e-9 and in float32 with identical masks; padded, packed, permuted
and split."""

from dataclasses import replace
from functools import partial

import golden_vectors as golden
import pytest
import torch
from torch import Tensor

from cppo_lab.objectives.advantages import compute_advantages
from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.critics import gae, value_loss
from cppo_lab.objectives.divergences import divergence
from cppo_lab.objectives.objective import TokenObjective, token_objective
from cppo_lab.objectives.packing import unpack
from cppo_lab.objectives.spec import AdvantageSpec, AggregationSpec, CorrectionSpec, DivergenceSpec

POINT_CASES = [
    (case, method)
    for case in golden.TOKEN_CASES
    for method in golden.POINTS
    if method in golden.vectors()[case]["methods"]
]
AGGREGATIONS = {
    "token_mean": AggregationSpec(kind="token_mean"),
    "seq_mean_token_mean__skip_empty": AggregationSpec(kind="sequence_mean_token_mean"),
    "seq_mean_token_sum__skip_empty": AggregationSpec(kind="sequence_mean_token_sum"),
    "seq_mean_token_sum_norm_h8__skip_empty": AggregationSpec(kind="sequence_mean_token_sum_norm", horizon=8),
}
MASK_KEYS = {"keep", "toward", "token_ok", "budget_reject", "token_has_grad"}


def with_order(batch: TokenBatch, case: str, method: str) -> TokenBatch:
    perm = golden.vectors()[case]["methods"][method]["params"].get("perm")
    if perm is None:
        return batch
    order = torch.zeros(batch.logp.shape)
    for row, keys in enumerate(perm):
        order[row, batch.response_mask[row]] = torch.tensor(keys, dtype=torch.float32)
    return replace(batch, weight_order=order)


def load(case: str, method: str, dtype: torch.dtype) -> TokenBatch:
    return with_order(golden.load(case, dtype), case, method)


def spread(batch: TokenBatch) -> TokenBatch:
    """The same responses with rows reversed, three columns of junk on the left and two on the right."""

    def move(values: Tensor, junk: float) -> Tensor:
        flipped = values.flip(0)
        return torch.nn.functional.pad(
            flipped.float() if values.dtype == torch.bool else flipped, (3, 2), value=junk
        )

    return TokenBatch(
        logp=move(batch.logp.detach(), float("nan")).requires_grad_(),
        rollout_logp=move(batch.rollout_logp, float("-inf")),
        advantages=batch.advantages.flip(0),
        response_mask=move(batch.response_mask, 0.0) > 0,
        old_logp=None if batch.old_logp is None else move(batch.old_logp, 7.0),
        weight_order=None if batch.weight_order is None else move(batch.weight_order, 0.0),
    )


def unspread(values: Tensor) -> Tensor:
    return (values[:, 3:-2] if values.dim() == 2 else values).flip(0)


def packed(batch: TokenBatch) -> tuple[TokenBatch, Tensor, Tensor]:
    """The batch by way of its responses laid end to end, and the packed log pi [N] and lengths [B]."""
    columns = torch.arange(1, batch.logp.shape[1] + 1)
    lengths = (batch.response_mask * columns).amax(-1)
    inside = columns <= lengths.unsqueeze(-1)
    logp = batch.logp.detach()[inside].requires_grad_()

    def through(values: Tensor) -> Tensor:
        return unpack(values[inside], lengths)

    again = TokenBatch(
        logp=unpack(logp, lengths),
        rollout_logp=through(batch.rollout_logp),
        advantages=batch.advantages,
        response_mask=through(batch.response_mask),
        old_logp=None if batch.old_logp is None else through(batch.old_logp),
        weight_order=None if batch.weight_order is None else through(batch.weight_order),
    )
    return again, logp, lengths


def observed(batch: TokenBatch, objective: TokenObjective) -> dict[str, Tensor | None]:
    """What the vectors name, from one objective; the gradient is of the summed loss."""
    objective.loss.sum().backward()
    mask = batch.response_mask
    inside = mask.to(objective.loss.dtype)
    found: dict[str, Tensor | None] = {
        "loss_tok": objective.loss.detach(),
        "dlogp": batch.logp.grad,
        "keep": mask & ~objective.masked,
        "token_has_grad": mask & ~objective.masked,
        "ratio": objective.ratio * inside,
        "cum_ratio": objective.ratio * inside,
        "D": objective.divergence,
        "w": objective.weights,
        "c": objective.threshold,
        "x": objective.violation,
        "budget_reject": objective.masked_by_budget,
        "toward": objective.toward,
        "delta_b_seq": objective.effective_budget,
    }
    if objective.violation is not None:
        found["gate"] = objective.gate
    if objective.weights is not None and objective.divergence is not None:
        found["Z"] = objective.weights * objective.divergence
    return found


def compare(case: str, method: str, found: dict[str, Tensor | None], tolerance: float) -> list[str]:
    compared = []
    for key, value in found.items():
        if value is None or key not in golden.expected(case, method):
            continue
        want = golden.expected_tensor(case, method, key)
        if key in MASK_KEYS:
            assert torch.equal(value.double(), want), (key, value, want)
        else:
            message = partial("{}: {}".format, key)
            torch.testing.assert_close(value.double(), want, rtol=tolerance, atol=tolerance, msg=message)
        compared.append(key)
    return compared


@pytest.mark.parametrize(("case", "method"), POINT_CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_point_equals_its_vector(case: str, method: str, dtype: torch.dtype, tolerance: float) -> None:
    batch = load(case, method, dtype)
    objective = token_objective(batch, golden.POINTS[method])
    compared = compare(case, method, observed(batch, objective), tolerance)
    assert len(compared) >= 1


@pytest.mark.parametrize(("case", "method"), POINT_CASES)
def test_padding_and_row_order_change_nothing(case: str, method: str) -> None:
    batch = load(case, method, torch.float64)
    moved = spread(batch)
    plain = observed(batch, token_objective(batch, golden.POINTS[method]))
    other = observed(moved, token_objective(moved, golden.POINTS[method]))
    for key, value in plain.items():
        if value is not None:
            torch.testing.assert_close(unspread(other[key]).double(), value.double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("case", "method"), POINT_CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_packed_responses_equal_the_vector(
    case: str, method: str, dtype: torch.dtype, tolerance: float
) -> None:
    padded = load(case, method, dtype)
    batch, logp, lengths = packed(padded)
    batch.logp.retain_grad()
    found = observed(batch, token_objective(batch, golden.POINTS[method]))
    short = padded.logp.shape[1] - batch.logp.shape[1]
    wide = {
        key: torch.nn.functional.pad(value, (0, short)) if value is not None and value.dim() == 2 else value
        for key, value in found.items()
    }
    assert compare(case, method, wide, tolerance)
    assert logp.grad is not None
    assert torch.equal(unpack(logp.grad, lengths), batch.logp.grad)


def test_packed_values_that_their_lengths_do_not_cover_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths add up to 4: must be 5"):
        unpack(torch.zeros(5), torch.tensor([3, 1]))
    assert unpack(torch.ones(3, 2), torch.tensor([0, 1, 2])).sum((1, 2)).tolist() == [0, 2, 4]
    assert unpack(torch.zeros(0), torch.tensor([0, 0])).shape == (2, 1)


@pytest.mark.parametrize(
    ("case", "method"), [point for point in POINT_CASES if "agg" in golden.expected(*point)]
)
@pytest.mark.parametrize("name", AGGREGATIONS)
def test_aggregations_equal_the_vectors_and_survive_micro_batches(case: str, method: str, name: str) -> None:
    agg = golden.expected(case, method)["agg"]
    spec = AGGREGATIONS[name]
    batch = load(case, method, torch.float64)
    total = denominator(batch.response_mask, spec)
    parts = []
    for row in range(batch.logp.shape[0]):
        part = batch.rows(slice(row, row + 1))
        loss = token_objective(part, golden.POINTS[method]).loss
        parts.append(aggregate(loss, part.response_mask, spec, total))
    whole = aggregate(token_objective(batch, golden.POINTS[method]).loss, batch.response_mask, spec, total)
    assert whole.item() == pytest.approx(agg[name], abs=1e-9)
    assert sum(part.item() for part in parts) == pytest.approx(whole.item(), abs=1e-12)


@pytest.mark.parametrize("case", golden.TOKEN_CASES)
@pytest.mark.parametrize("method", golden.SEQUENCE_THRESHOLDS)
@pytest.mark.parametrize("which", golden.SEQUENCE_KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_sequence_regions_equal_their_vectors(
    case: str, method: str, which: str, dtype: torch.dtype, tolerance: float
) -> None:
    batch = golden.load(case, dtype)
    objective = token_objective(batch, golden.sequence_point(method, which))
    accepted = golden.expected_tensor(case, method, f"accept_{which}") > 0
    rows = batch.response_mask.any(-1)
    assert torch.equal(objective.gate.amax(-1)[rows] > 0, accepted[rows])
    want = golden.expected_tensor(case, method, f"loss_tok_{which}")
    torch.testing.assert_close(objective.loss.double(), want, rtol=tolerance, atol=tolerance)
    spec = AGGREGATIONS["token_mean"]
    value = aggregate(objective.loss, batch.response_mask, spec, denominator(batch.response_mask, spec))
    fixed = golden.expected(case, method)[f"token_mean_fixed_denominator_{which}"]
    assert value.item() == pytest.approx(fixed, abs=tolerance)


@pytest.mark.parametrize("method", golden.OLD_ANCHOR_POINTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_corrections_equal_their_vectors(method: str, dtype: torch.dtype, tolerance: float) -> None:
    batch = golden.load("mismatch", dtype, use_old=True)
    objective = token_objective(batch, golden.OLD_ANCHOR_POINTS[method])
    compared = compare("mismatch", method, observed(batch, objective), tolerance)
    assert {"loss_tok", "dlogp"} <= set(compared)
    if "weight" in golden.expected("mismatch", method):
        want = golden.expected_tensor("mismatch", method, "weight") * batch.response_mask
        torch.testing.assert_close(objective.correction.double(), want, rtol=tolerance, atol=tolerance)


def test_response_level_rejections_turn_at_the_vector_s_statistics() -> None:
    batch = golden.load("mismatch", torch.float64, use_old=True)
    standing = replace(batch, logp=batch.old_logp, advantages=torch.tensor([-1.0, -1.0]))
    plain = golden.OLD_ANCHOR_POINTS["ppo_old_anchor_plain"]
    want = golden.expected("mismatch", "mismatch_weights")

    def kept(row: int, kind: str, **bounds: float) -> bool:
        spec = plain.replace(correction=CorrectionSpec(kind=kind, **bounds))
        return bool(token_objective(standing, spec).correction[row].any())

    for row, mean in enumerate(want["geo_ratio"]):
        assert kept(row, "geometric", low=mean - 1e-9, high=mean + 1e-9)
        assert not kept(row, "geometric", low=mean + 1e-9, high=9.0)
        assert not kept(row, "geometric", high=mean - 1e-9)
    drift = want["opsm_stat_mean_log_mu_over_old"][1]
    assert kept(1, "opsm", high=drift + 1e-9)
    assert not kept(1, "opsm", high=drift - 1e-9)


@pytest.mark.parametrize("case", golden.TOKEN_CASES)
def test_weights_over_the_padded_width_equal_the_peer_without_holes(case: str) -> None:
    batch = golden.load(case, torch.float64)
    objective = token_objective(batch, golden.padded_width_point(batch.logp.shape[1]))
    method = "cppo_padded_T_verl_pr"
    want = golden.expected_tensor(case, method, "w")
    whole = (batch.response_mask.cumsum(-1) == torch.arange(1, want.shape[1] + 1)) | ~batch.response_mask
    rows = whole.all(-1)
    torch.testing.assert_close(objective.weights[rows], want[rows], rtol=0, atol=1e-12)
    keep = batch.response_mask & ~objective.masked
    assert torch.equal(keep[rows].double(), golden.expected_tensor(case, method, "keep")[rows])


@pytest.mark.parametrize("case", ["edge", "flip"])
def test_counting_holes_reproduces_the_peer_and_differs_from_the_lab(case: str) -> None:
    batch = golden.load(case, torch.float64)
    filled = batch.response_mask.flip(-1).cumsum(-1).flip(-1) > 0
    peer = token_objective(replace(batch, response_mask=filled), golden.POINTS["cppo_fixed_0.015"])
    want = golden.expected_tensor(case, "cppo_holes_counted_unirl", "keep") > 0
    assert torch.equal((filled & ~peer.masked) & batch.response_mask, want)
    lab = token_objective(batch, golden.POINTS["cppo_fixed_0.015"])
    assert not torch.equal(batch.response_mask & ~lab.masked, want) or case == "edge"


@pytest.mark.parametrize(("atoms", "key"), [("union", "paper"), ("replace", "replace_last")])
@pytest.mark.parametrize("which", ["sampled_in_topk", "sampled_outside_topk"])
def test_reduced_divergences_equal_their_vectors(atoms: str, key: str, which: str) -> None:
    inputs = golden.vectors()["topk"]["inputs"]
    case = golden.vectors()["topk"]["expected"][which]
    mu, pi = (torch.tensor(inputs[name], dtype=torch.float64).log().view(1, 1, -1) for name in ("mu", "pi"))
    listed = mu.topk(case["K"], dim=-1).indices
    sampled = case["sampled"]
    mask = torch.ones(1, 1, dtype=torch.bool)
    topk = TopK(mu.gather(-1, listed), pi.gather(-1, listed), (listed == sampled).any(-1))
    full = FullDistributions(mu, pi)
    for kind, want in {
        "topk_tv": case[key]["tv"],
        "topk_kl": case[key]["kl"],
        "binary_tv": case["binary_tv"],
        "binary_kl": case["binary_kl"],
        "exact_tv": case["full_tv"],
        "exact_kl": case["full_kl"],
    }.items():
        spec = DivergenceSpec(kind=kind, atoms=atoms)
        found = divergence(spec, pi[..., sampled], mu[..., sampled], mask, topk, full)
        assert found.item() == pytest.approx(want, abs=1e-9), kind


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (AdvantageSpec(kind="group_normalised"), "grpo_ddof1_eps1e6"),
        (AdvantageSpec(kind="group_normalised", epsilon=1e-4), "grpo_ddof1_eps1e4_trl"),
        (AdvantageSpec(kind="group_centred"), "drgrpo"),
        (AdvantageSpec(kind="leave_one_out"), "rloo"),
    ],
)
def test_group_advantages_equal_their_vectors(spec: AdvantageSpec, key: str) -> None:
    case = golden.vectors()["advantages"]
    rewards = torch.tensor([case["inputs"]["group"]], dtype=torch.float64)
    want = torch.tensor(case["expected"][key], dtype=torch.float64)
    torch.testing.assert_close(compute_advantages(rewards, spec), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rewards", [0.0, 0.1, 1.0])
def test_groups_without_variance_equal_their_vector(rewards: float) -> None:
    want = golden.vectors()["advantages"]["expected"]["grpo_zero_variance"]
    group = torch.full((1, len(want)), rewards, dtype=torch.float64)
    assert compute_advantages(group, AdvantageSpec(kind="group_normalised")).tolist() == want


@pytest.mark.parametrize(("lam", "name"), [(0.95, "lam095"), (1.0, "lam1")])
def test_gae_equals_its_vector(lam: float, name: str) -> None:
    case = golden.vectors()["gae"]
    rewards, values, new = (
        torch.tensor([case["inputs"][key]], dtype=torch.float64)
        for key in ("rewards", "values", "new_values")
    )
    mask = torch.ones_like(rewards, dtype=torch.bool)
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    assert advantages[0].tolist() == pytest.approx(case["expected"][f"adv_{name}"], abs=1e-9)
    assert returns[0].tolist() == pytest.approx(case["expected"][f"ret_{name}"], abs=1e-9)
    if name == "lam095":
        loss = value_loss(new, values, returns, case["inputs"]["cliprange_value"])
        assert loss[0].tolist() == pytest.approx(case["expected"]["value_loss_tok_lam095"], abs=1e-9)
        mean = AggregationSpec(kind="token_mean")
        total = aggregate(loss, mask, mean, denominator(mask, mean))
        assert total.item() == pytest.approx(case["expected"]["value_loss_mean"], abs=1e-9)

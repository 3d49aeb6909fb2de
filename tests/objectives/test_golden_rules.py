"""Every built-in rule of every kind equals its golden vector, worked out with Python's `math` alone.

`tests/golden/rules.json` holds, by selecting key and rule, inputs, parameters and the expected values. Responses are
lists of their tokens' values; null stands for infinity.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cppo_lab.objectives.advantages import token_advantages
from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.budgets import Allowance, BudgetInputs
from cppo_lab.objectives.describe import rules_of
from cppo_lab.objectives.divergences import divergence
from cppo_lab.objectives.gates import gates
from cppo_lab.objectives.objective import TokenObjective, batch_statistics, token_objective
from cppo_lab.objectives.regularisers import kl_estimate
from cppo_lab.objectives.schedules import ThresholdController, schedule_factor
from cppo_lab.objectives.spec import (
    AdvantageSpec,
    AggregationSpec,
    AlgoSpec,
    BudgetSpec,
    DivergenceSpec,
    ScheduleSpec,
    TrustRegionSpec,
    WeightSpec,
)
from cppo_lab.objectives.surrogates import surrogates
from cppo_lab.objectives.trust_regions import trust_regions
from cppo_lab.objectives.weights import position_weights

Values = dict[str, Any]
VECTORS: dict[str, dict[str, list[Values]]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "rules.json").read_text(encoding="utf-8")
)
CLIP = {"kind": "ratio_clip", "clip_low": 0.2, "clip_high": 0.28}
LOG_CLIP = {"kind": "ratio_clip", "clip_low": 0.4, "clip_high": 0.4, "clip_space": "log"}


def tensor(rows: Any) -> Tensor:
    """Numbers, or lists of unequal length padded with zeros, in float64."""
    if isinstance(rows, list) and rows and isinstance(rows[0], list):
        width = max(map(len, rows))
        rows = [[*row, *[0.0] * (width - len(row))] for row in rows]
    elif isinstance(rows, list):
        rows = [float("inf") if value is None else value for value in rows]
    return torch.tensor(rows, dtype=torch.float64)


def mask_of(rows: list[list[float]]) -> Tensor:
    return tensor([[1.0] * len(row) for row in rows]) > 0


def objective_of(given: Values, **coordinates: Any) -> TokenObjective:
    anchor = "old" if "old" in given else "rollout"
    algo = AlgoSpec(name="golden", paper="", anchor=anchor, paper_anchor=anchor, **coordinates)
    batch = TokenBatch(
        logp=tensor(given["pi"]).log(),
        rollout_logp=tensor(given["mu"]).log(),
        advantages=tensor(given["advantages"]),
        response_mask=mask_of(given["mu"]),
        old_logp=tensor(given["old"]).log() if "old" in given else None,
        rollout_entropy=tensor(given["entropy"]) if "entropy" in given else None,
        version_lag=tensor(given["lag"]).long() if "lag" in given else None,
        selection_order=tensor(given["order"]) if "order" in given else None,
        prompt=tensor(given["prompts"]).long() if "prompts" in given else None,
    )
    return token_objective(batch, algo, statistics=batch_statistics([batch], algo))


def of_weights(name: str, given: Values, parameters: Values) -> Tensor:
    mask = torch.ones(1, given["length"], dtype=torch.bool)
    order = tensor([given["order"]]) if "order" in given else None
    return position_weights(mask, WeightSpec(kind=name, **parameters), order, torch.float64)[0]


def of_divergence(name: str, given: Values, parameters: Values) -> Tensor:
    mu, pi = (tensor(given[key]).log().view(1, 1, -1) for key in ("mu", "pi"))
    sampled, spec = given["sampled"], DivergenceSpec(kind=name, **parameters)
    listed = mu.topk(min(spec.k, mu.shape[-1]), dim=-1).indices
    topk = TopK(mu.gather(-1, listed), pi.gather(-1, listed), (listed == sampled).any(-1))
    mask = torch.ones(1, 1, dtype=torch.bool)
    found = divergence(spec, pi[..., sampled], mu[..., sampled], mask, topk, FullDistributions(mu, pi))
    return torch.zeros((), dtype=torch.float64) if found is None else found.squeeze()


def of_budget(name: str, given: Values, parameters: Values) -> Tensor:
    distance, weights = tensor([given["divergence"]]), tensor([given["weights"]])
    cost = distance * weights
    mask = torch.ones_like(cost, dtype=torch.bool)
    inputs = BudgetInputs(
        distance, cost, cost.cumsum(-1), weights.cumsum(-1), mask, given["size"], given["delta"]
    )
    granted: Allowance = BudgetSpec(kind=name, **parameters).rule()(inputs)
    return (granted.allowed - granted.charged_before)[0]


def of_schedule(name: str, given: Values, parameters: Values) -> Tensor:
    spec = ScheduleSpec(kind=name, **parameters)
    if not spec.has_feedback:
        return tensor(schedule_factor(spec, step=given["step"], progress=given["progress"]))
    controller = ThresholdController(spec)
    controller.load_state_dict({"factor": given["factor"]})
    return tensor(controller.update(given["masked_share"]))


def of_region(name: str, given: Values, parameters: Values) -> Tensor:
    measured = "divergence" in trust_regions[name].needs
    kind = "binary_tv" if measured else "none"
    return objective_of(given, divergence={"kind": kind}, trust_region={"kind": name, **parameters}).gate


def of_direction(name: str, given: Values, parameters: Values) -> Tensor:
    """Over the top 2 of mu: 1 where the token may be dropped."""
    mu, pi = (tensor(given[key]).log().view(1, 1, -1) for key in ("mu", "pi"))
    sampled, listed = given["sampled"], mu.topk(2, dim=-1).indices
    batch = TokenBatch(
        logp=pi[..., sampled],
        rollout_logp=mu[..., sampled],
        advantages=tensor([given["advantage"]]),
        response_mask=torch.ones(1, 1, dtype=torch.bool),
        topk=TopK(mu.gather(-1, listed), pi.gather(-1, listed), (listed == sampled).any(-1)),
        vocabulary=mu.shape[-1],
        collision=pi.exp().square().sum(-1),
    )
    region = TrustRegionSpec(kind="divergence_threshold", delta=1e-9, direction=name, **parameters)
    spec = DivergenceSpec(kind="topk_kl", k=2)
    algo = AlgoSpec(
        name="golden",
        paper="",
        anchor="rollout",
        paper_anchor="rollout",
        divergence=spec,
        trust_region=region,
    )
    return token_objective(batch, algo).masked.double().squeeze()


def of_gate(name: str, given: Values, parameters: Values) -> Tensor:
    violation = tensor(given["violation"])
    soft = "violation" in gates[name].needs
    spec = TrustRegionSpec(kind="divergence_threshold", delta=1.0, gate=name, **parameters)
    return spec.rule("gate")(violation if soft else violation <= 1).double()


def of_scale(name: str, given: Values, parameters: Values) -> Tensor:
    region = {"kind": "ratio_clip", "clip_low": given["clip_low"], "clip_high": given["clip_high"]}
    surrogate = {"kind": "bound_distance"}
    return objective_of(given, trust_region={**region, "scale": name, **parameters}, surrogate=surrogate).loss


def of_surrogate(name: str, given: Values, parameters: Values) -> Tensor:
    clip = LOG_CLIP if name == "geometric" else CLIP
    region = clip if "clip_window" in surrogates[name].needs else {"kind": "none"}
    return objective_of(given, trust_region=region, surrogate={"kind": name, **parameters}).policy_loss


def of_ratio(name: str, given: Values, parameters: Values) -> Tensor:
    found = objective_of(given, surrogate={"kind": "ratio", "ratio": name, **parameters})
    return found.ratio * mask_of(given["mu"])


def of_selection(name: str, given: Values, parameters: Values) -> Tensor:
    clipped = {"trust_region": CLIP, "surrogate": {"kind": "clipped"}} if "clip" in given else {}
    return objective_of(given, selection={"kind": name, **parameters}, **clipped).policy_loss


def of_correction(name: str, given: Values, parameters: Values) -> Tensor:
    found = objective_of(given, correction={"kind": name, **parameters}).correction
    return mask_of(given["mu"]).double() if found is None else found


def of_advantage(name: str, given: Values, parameters: Values) -> Tensor:
    rewards, spec = tensor(given["rewards"]), AdvantageSpec(kind=name, **parameters)
    mask = mask_of(given.get("values") or [[0.0]] * rewards.numel())
    values = tensor(given["values"]) if "values" in given else None
    found, _ = token_advantages(rewards, mask, spec, values=values)
    return found if values is not None else found.flatten()


def of_aggregation(name: str, given: Values, parameters: Values) -> Tensor:
    losses, mask = tensor(given["losses"]), mask_of(given["losses"])
    spec = AggregationSpec(kind=name, **parameters)
    return aggregate(losses, mask, spec, denominator(mask, spec))


def of_kl_estimator(name: str, given: Values, parameters: Values) -> Tensor:
    return kl_estimate(name, tensor(given["pi"]).log(), tensor(given["reference"]).log())


FOUND: dict[str, Callable[[str, Values, Values], Tensor]] = {
    "advantage.kind": of_advantage,
    "aggregation.kind": of_aggregation,
    "correction.kind": of_correction,
    "divergence.kind": of_divergence,
    "regulariser.kl_kind": of_kl_estimator,
    "schedule.kind": of_schedule,
    "selection.kind": of_selection,
    "surrogate.kind": of_surrogate,
    "surrogate.ratio": of_ratio,
    "trust_region.budget.kind": of_budget,
    "trust_region.direction": of_direction,
    "trust_region.gate": of_gate,
    "trust_region.kind": of_region,
    "trust_region.scale": of_scale,
    "trust_region.weights.kind": of_weights,
}
CASES = [
    (kind, name, index)
    for kind, rules in VECTORS.items()
    for name, cases in rules.items()
    for index in range(len(cases))
]


@pytest.mark.parametrize(("kind", "name", "index"), CASES)
def test_a_rule_equals_its_vector(kind: str, name: str, index: int) -> None:
    case = VECTORS[kind][name][index]
    found = FOUND[kind](name, case["inputs"], case["parameters"])
    torch.testing.assert_close(found.double(), tensor(case["expected"]), rtol=0, atol=1e-9)


def test_every_built_in_rule_of_every_kind_has_a_vector_and_every_vector_a_rule() -> None:
    built_in = {
        rules.kind: {entry.name for entry in rules.entries() if entry.is_built_in} for _, rules in rules_of()
    }
    assert {kind: set(rules) for kind, rules in VECTORS.items()} == built_in


def test_the_vectors_use_every_parameter_of_every_rule() -> None:
    unused = {
        f"{rules.kind} {rule.name} {each.name}"
        for _, rules in rules_of()
        for rule in rules.values()
        for each in rule.parameters
        if rules.entry(rule.name).is_built_in
        if not any(each.name in case["parameters"] for case in VECTORS[rules.kind][rule.name])
    }
    # SAPO's temperatures are those of its paper, and a schedule's step 0 is the whole run.
    assert unused <= {
        "surrogate.kind sapo tau_positive",
        "surrogate.kind sapo tau_negative",
        "schedule.kind cosine steps",
        "schedule.kind target_share factor_min",
    }

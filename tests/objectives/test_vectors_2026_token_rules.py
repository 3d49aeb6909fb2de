"""Direction tests, the penalty that pulls to the anchor and further token-level rules, against their vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vectors_2026 import ABSENT, assert_equals_vector, cases_of, expected, parameters, token_batch, vectors

from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.objective import token_objective
from cppo_lab.objectives.spec import (
    AlgoSpec,
    CorrectionSpec,
    DivergenceSpec,
    RegulariserSpec,
    SurrogateSpec,
    TrustRegionSpec,
)

pytestmark = pytest.mark.skipif(not vectors(), reason=ABSENT)
BOTH_TYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def point(anchor: str = "rollout", **parts: Any) -> AlgoSpec:
    return AlgoSpec(name="golden", paper="", anchor=anchor, paper_anchor=anchor, **parts)


def threshold(kind: str, delta: float, **region: Any) -> dict[str, Any]:
    return {
        "divergence": DivergenceSpec(kind=kind),
        "trust_region": TrustRegionSpec(kind="divergence_threshold", delta=delta, **region),
    }


def clip(low: float, high: float, ratio: str, **parts: Any) -> dict[str, Any]:
    return parts | {
        "trust_region": TrustRegionSpec(kind="ratio_clip", clip_low=low, clip_high=high),
        "surrogate": SurrogateSpec(kind="clipped", ratio=ratio),
    }


def penalised(given: dict[str, Any]) -> AlgoSpec:
    tv = threshold("binary_tv", given["delta_high"], delta_negative=given["delta_low"])
    return point(**tv, regulariser=RegulariserSpec(anchor_coefficient=given["anchor_penalty"]))


def of_token_rule(name: str, given: dict[str, Any]) -> AlgoSpec:
    """The coordinates of a vector."""
    if name == "ipo":
        return point(
            **threshold("binary_tv", given["threshold"], direction="none"),
            regulariser=RegulariserSpec(anchor_coefficient=given["anchor_penalty"]),
        )
    if name in ("dppo_tv_anchor_penalty", "anchor_penalty_large"):
        return penalised(given)
    if name == "dro":
        penalty = RegulariserSpec(anchor_coefficient=given["beta"] / 2)
        return point(surrogate=SurrogateSpec(kind="log_probability"), regulariser=penalty)
    if name == "binary_kl_both_direction_none":
        parts = threshold("binary_kl", given["phi"], direction="none")
        return point(**parts | {"divergence": DivergenceSpec(kind="binary_kl", direction="both")})
    if name == "luspo":
        return point(**clip(given["eps_low"], given["eps_high"], "sequence"))
    if name == "pnpo_unverified_clip":
        return point(**clip(given["eps_low"], given["eps_high"], "prefix_mean"))
    assert name == "atr_grpo", name
    return point(**threshold("k3", given["delta"]))


TOKEN_RULES = cases_of(
    "ipo",
    "dppo_tv_anchor_penalty",
    "anchor_penalty_large",
    "dro",
    "binary_kl_both_direction_none",
    "luspo",
    "pnpo_unverified_clip",
    "atr_grpo",
)


@BOTH_TYPES
@pytest.mark.parametrize(("case", "name"), TOKEN_RULES)
def test_token_rules_equal_their_vectors(case: str, name: str, dtype: torch.dtype) -> None:
    batch = token_batch(case, dtype)
    assert_equals_vector(case, name, batch, of_token_rule(name, parameters(case, name)))


@BOTH_TYPES
@pytest.mark.parametrize(("case", "name"), cases_of("kpop_old_anchor"))
def test_kpop_drops_where_trainer_and_sampler_are_apart(case: str, name: str, dtype: torch.dtype) -> None:
    correction = CorrectionSpec(kind="binary_kl", high=parameters(case, name)["phi"])
    clipped = clip(0.2, 0.28, "token") | {"correction": correction}
    objective = assert_equals_vector(
        case, name, token_batch(case, dtype, anchor="old"), point(anchor="old", **clipped)
    )
    assert objective.correction is not None


def distributions(dtype: torch.dtype, k: int | None) -> dict[str, Any]:
    """The tensors of `dist26` beside the sampled tokens': the top `k`, or the whole distributions."""
    inputs = vectors()["dist26"]["inputs"]
    mu, pi = (torch.tensor(inputs[key], dtype=dtype).log() for key in ("mu_dist", "pi_dist"))
    if k is None:
        return {"full": FullDistributions(mu, pi)}
    listed = mu.topk(k, dim=-1).indices
    inside = (listed == torch.tensor(inputs["sampled"]).unsqueeze(-1)).any(-1)
    return {
        "topk": TopK(mu.gather(-1, listed), pi.gather(-1, listed), inside),
        "vocabulary": mu.shape[-1],
        "collision": pi.exp().square().sum(-1),
    }


@BOTH_TYPES
@pytest.mark.parametrize(
    "name",
    [name for case, name in cases_of(*vectors().get("dist26", {}).get("methods", ())) if case == "dist26"],
)
def test_directions_equal_their_vectors(name: str, dtype: torch.dtype) -> None:
    given = parameters("dist26", name)
    kind = "exact_tv" if given.get("kind") == "tv" else "exact_kl"
    spec = {"kind": "topk_kl", "k": given["K"]} if "K" in given else {"kind": kind}
    if given.get("kind") == "reverse_kl":
        spec["direction"] = "reverse"
    region = {"direction": given["direction"], "tail": given.get("tail", "uniform")}
    algo = point(
        divergence=DivergenceSpec(**spec),
        trust_region=TrustRegionSpec(kind="divergence_threshold", delta=given["delta"], **region),
    )
    batch = token_batch("dist26", dtype, **distributions(dtype, given.get("K")))
    objective = assert_equals_vector("dist26", name, batch, algo)
    if "dot" in expected("dist26", name):
        assert objective.predicted_change is not None
        want = torch.tensor(expected("dist26", name)["dot"], dtype=torch.float64)
        tolerance = 1e-9 if dtype == torch.float64 else 1e-6
        torch.testing.assert_close(objective.predicted_change.double(), want, rtol=tolerance, atol=tolerance)


CHANGES = [
    (place, tail)
    for place in ("sampled_in_topk", "sampled_outside_topk")
    for tail in ("uniform", "aggregated", "second_moment", "exact", "exact_tv", "exact_reverse_kl")
]


@pytest.mark.parametrize(("place", "tail"), CHANGES)
def test_predicted_changes_equal_their_vectors(place: str, tail: str) -> None:
    inputs, want = vectors()["topk_predicted"]["inputs"], vectors()["topk_predicted"]["expected"][place]
    mu, pi = (torch.tensor([[inputs[key]]], dtype=torch.float64).log() for key in ("mu", "pi"))
    sampled, listed = want["sampled"], mu.topk(want["K"], dim=-1).indices
    spec = {
        "exact": {"kind": "exact_kl"},
        "exact_tv": {"kind": "exact_tv"},
        "exact_reverse_kl": {"kind": "exact_kl", "direction": "reverse"},
    }.get(tail, {"kind": "topk_kl", "k": want["K"]})
    region = {"tail": tail} if "k" in spec else {}
    algo = point(
        divergence=DivergenceSpec(**spec),
        trust_region=TrustRegionSpec(
            kind="divergence_threshold", delta=1e-6, direction="predicted", **region
        ),
    )
    objective = token_objective(
        TokenBatch(
            logp=pi[..., sampled],
            rollout_logp=mu[..., sampled],
            advantages=torch.ones(1, dtype=torch.float64),
            response_mask=torch.ones(1, 1, dtype=torch.bool),
            topk=TopK(mu.gather(-1, listed), pi.gather(-1, listed), (listed == sampled).any(-1)),
            full=FullDistributions(mu, pi),
            vocabulary=mu.shape[-1],
            collision=pi.exp().square().sum(-1),
        ),
        algo,
    )
    assert objective.predicted_change is not None
    assert float(objective.predicted_change) == pytest.approx(want[tail]["dot"], abs=1e-12)
    assert float(objective.divergence) == pytest.approx(want[tail]["D"], abs=1e-9)

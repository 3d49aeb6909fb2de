"""The rules of 2026 over responses, prompts and minibatches equal vectors that an independent generator made.

The vectors lie outside the repository: ../shared/golden/vectors-2026.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_vectors import padded
from torch import Tensor

from cppo_lab.objectives.aggregation import AggregationSpec, aggregate, denominator
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.objective import TokenObjective, batch_statistics, token_objective
from cppo_lab.objectives.spec import AlgoSpec

VECTORS = Path(__file__).parents[3] / "shared" / "golden" / "vectors-2026.json"
CASES: dict[str, Any] = (
    {name: case for name, case in json.loads(VECTORS.read_text()).items() if "methods" in case}
    if VECTORS.is_file()
    else {}
)
pytestmark = pytest.mark.skipif(not CASES, reason="../shared/golden/vectors-2026.json is not here")

Values = dict[str, Any]


def point(**coordinates: Any) -> AlgoSpec:
    return AlgoSpec(name="golden", paper="", anchor="rollout", paper_anchor="rollout", **coordinates)


def of_vespo(given: Values) -> AlgoSpec:
    shape = {
        "k_positive": given["k_pos"],
        "lambda_positive": given["lambda_pos"],
        "k_negative": given["k_neg"],
        "lambda_negative": given["lambda_neg"],
    }
    return point(surrogate={"kind": "gamma", "ratio": "sequence_product", **shape})


def of_topr(given: Values) -> AlgoSpec:
    bounds = {"ratio_low": 1.0, "ratio_high": 1.0, "negative_low": 0.0, "negative_high": 1.0}
    ratio = {"sequence": "sequence_product", "token": "token"}[given["level"]]
    return point(surrogate={"kind": "truncated", "ratio": ratio, **bounds})


def of_trimmed(given: Values) -> AlgoSpec:
    pool = "all" if given["pool"].startswith("all") else "away"
    region = {"kind": "trimmed_mean", "delta_mean": given["tau"] / 2, "trimmed_from": pool}
    return point(divergence={"kind": "k2"}, trust_region=region)


def of_bpo(given: Values) -> AlgoSpec:
    region = {"kind": "ratio_clip", "gate": "reflect", **window(given)}
    return point(trust_region=region, surrogate={"kind": "bound_distance"})


def of_staleness_tail(given: Values) -> AlgoSpec:
    tail = {"tail_quantile": given["alpha"], "tail_kernel": given["kernel"]}
    return point(
        trust_region={"kind": "ratio_clip", "scale": "staleness_tail", **tail, **window(given)},
        surrogate={"kind": "clipped", "ratio": given.get("level", "token")},
    )


def of_version_lag(given: Values) -> AlgoSpec:
    region = {"kind": "ratio_clip", "scale": "version_lag", **window(given)}
    return point(trust_region=region, surrogate={"kind": "clipped"})


def of_switched(given: Values) -> AlgoSpec:
    region = {"kind": "switched_mean", "scope": given["scope"], "delta_mean": given["limit"]}
    return point(divergence={"kind": "ratio_tv"}, trust_region=region)


def of_entropy(given: Values) -> AlgoSpec:
    region = {
        "kind": "threshold_and_clip",
        "direction": "none",
        "scale": "entropy",
        "entropy_floor": given["floor"],
        "delta": given["tau"] / 2,
        **window(given),
    }
    return point(divergence={"kind": "k2"}, trust_region=region, surrogate={"kind": "clipped"})


def of_moment(given: Values) -> AlgoSpec:
    least = {"clip_low": given["mini_low"], "clip_high": given["mini_high"]}
    region = {"kind": "moment_clip", "moment_limit": given["tau"], **least}
    return point(trust_region=region, surrogate={"kind": "clipped"})


def of_clip_cov(given: Values) -> AlgoSpec:
    """As many are drawn as there are candidates, so that nothing is left to chance."""
    bounds = {"covariance_low": given["lb"], "covariance_high": given["ub"]}
    return point(
        trust_region={"kind": "ratio_clip", **window(given)},
        surrogate={"kind": "clipped"},
        selection={"kind": "clip_cov", "covariance_share": given["share"], **bounds},
    )


def of_kl_cov(given: Values) -> AlgoSpec:
    chosen = {"covariance_share": given["share"], "covariance_penalty": given["coef"]}
    return point(selection={"kind": "kl_cov", **chosen})


def window(given: Values) -> Values:
    return {"clip_low": given["eps_low"], "clip_high": given["eps_high"]}


POINTS = {
    "vespo": of_vespo,
    "topr_sequence": of_topr,
    "topr_token_roll_variant": of_topr,
    "m2po": of_trimmed,
    "m2po_all_tokens_areal_variant": of_trimmed,
    "m2po_author_code_variant": of_moment,
    "bpo": of_bpo,
    "staleness_tail_excess": of_staleness_tail,
    "staleness_tail_hill": of_staleness_tail,
    "staleness_tail_excess_sequence": of_staleness_tail,
    "staleness_tail_default_alpha": of_staleness_tail,
    "a3po_loglinear": of_version_lag,
    "switched_sequence": of_switched,
    "switched_batch": of_switched,
    "switched_batch_tight": of_switched,
    "switched_batch_then_prompt": of_switched,
    "estr": of_entropy,
    "clip_cov": of_clip_cov,
    "kl_cov": of_kl_cov,
}
VALUES_DIFFER = {"a3po_loglinear"}
"""A clipped token has the value of its bound here, which is a constant; that of the vector is another one."""
ENTRIES = [(case, name) for case, content in CASES.items() for name in POINTS if name in content["methods"]]
SAME_VALUES = [(case, name) for case, name in ENTRIES if name not in VALUES_DIFFER]


def batch_of(case: str, dtype: torch.dtype) -> TokenBatch:
    inputs = CASES[case]["inputs"]
    mask = torch.tensor(inputs["mask"]) > 0
    width = mask.shape[1]

    def tensor(name: str) -> Tensor | None:
        return padded(inputs[name], width, dtype) if name in inputs else None

    lag = tensor("lag")
    return TokenBatch(
        logp=padded(inputs["pi_logp"], width, dtype).requires_grad_(),
        rollout_logp=padded(inputs["mu_logp"], width, dtype),
        advantages=torch.tensor(inputs["adv"], dtype=dtype),
        response_mask=mask,
        rollout_entropy=tensor("entropy_mu"),
        version_lag=None if lag is None else lag.long(),
        selection_order=torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)),
        prompt=torch.tensor(inputs["group"]) if "group" in inputs else None,
    )


def objective_of(case: str, name: str, dtype: torch.dtype) -> tuple[TokenBatch, TokenObjective, Values]:
    vector, batch = CASES[case]["methods"][name], batch_of(case, dtype)
    algo = POINTS[name](vector["params"])
    return batch, token_objective(batch, algo, statistics=batch_statistics([batch], algo)), vector["expected"]


@pytest.mark.parametrize(("case", "name"), ENTRIES)
def test_loss_and_gradient_of_every_token_equal_the_vector(case: str, name: str) -> None:
    batch, objective, expected = objective_of(case, name, torch.float64)
    objective.loss.sum().backward()
    width = batch.logp.shape[1]
    close = {"rtol": 0.0, "atol": 1e-9}
    torch.testing.assert_close(batch.logp.grad, padded(expected["dlogp"], width, torch.float64), **close)
    wanted, found = padded(expected["loss_tok"], width, torch.float64), objective.loss.detach()
    if name in VALUES_DIFFER:
        wanted, found = wanted * (objective.gate == 1), found * (objective.gate == 1)
    torch.testing.assert_close(found, wanted, **close)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("case", "name"), ENTRIES)
def test_the_mask_equals_that_of_the_vector(case: str, name: str, dtype: torch.dtype) -> None:
    batch, objective, expected = objective_of(case, name, dtype)
    width = batch.logp.shape[1]
    if "gate" in expected:
        assert torch.equal(objective.gate, padded(expected["gate"], width, dtype) * batch.response_mask)
    if "keep" in expected:
        keep = padded(expected["keep"], width, torch.float64) > 0
        kept = ~objective.masked
        if name == "estr":
            # What the vector calls kept is within the threshold, clipped or not.
            assert objective.divergence is not None
            assert objective.threshold is not None
            kept = objective.divergence <= objective.threshold
        assert torch.equal(kept & batch.response_mask, keep)


@pytest.mark.parametrize(("case", "name"), SAME_VALUES)
def test_aggregated_losses_equal_the_vector(case: str, name: str) -> None:
    batch, objective, expected = objective_of(case, name, torch.float64)
    for kind, key in (
        ("token_mean", "token_mean"),
        ("sequence_mean_token_mean", "seq_mean_token_mean__skip_empty"),
        ("sequence_mean_token_sum", "seq_mean_token_sum__skip_empty"),
        ("sequence_mean_token_sum_norm", "seq_mean_token_sum_norm_h8__skip_empty"),
    ):
        spec = AggregationSpec(kind=kind, horizon=8 if kind.endswith("norm") else None)
        total = denominator(batch.response_mask, spec)
        found = aggregate(objective.loss.detach(), batch.response_mask, spec, total)
        assert float(found) == pytest.approx(expected["agg"][key], abs=1e-9), kind


@pytest.mark.parametrize(("case", "name"), ENTRIES)
def test_in_float32_values_are_close(case: str, name: str) -> None:
    batch, objective, expected = objective_of(case, name, torch.float32)
    if name not in VALUES_DIFFER:
        wanted = padded(expected["loss_tok"], batch.logp.shape[1], torch.float32)
        torch.testing.assert_close(objective.loss.detach(), wanted, rtol=1e-5, atol=1e-5)

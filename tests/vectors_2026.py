"""The vectors of the rules of 2026, which an independent generator made in float64; outside the repository."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from golden_vectors import padded
from torch import Tensor

from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.objective import TokenObjective, token_objective
from cppo_lab.objectives.spec import AggregationSpec, AlgoSpec

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT.parent / "shared" / "golden" / "vectors-2026.json"
ABSENT = f"no {FILE}: the vectors of 2026 do not come with the repository"
AGGREGATIONS = {
    "token_mean": AggregationSpec(),
    "seq_mean_token_mean__skip_empty": AggregationSpec(kind="sequence_mean_token_mean"),
    "seq_mean_token_sum__skip_empty": AggregationSpec(kind="sequence_mean_token_sum"),
    "seq_mean_token_sum_norm_h8__skip_empty": AggregationSpec(kind="sequence_mean_token_sum_norm", horizon=8),
}


@cache
def vectors() -> dict[str, Any]:
    """All cases; empty where the file is absent."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def cases_of(*methods: str) -> list[tuple[str, str]]:
    """Case and method of every vector of `methods`."""
    return [
        (case, name)
        for case, content in vectors().items()
        for name in content.get("methods", ())
        if name in methods
    ]


def parameters(case: str, method: str) -> dict[str, Any]:
    return vectors()[case]["methods"][method]["params"]


def expected(case: str, method: str) -> dict[str, Any]:
    return vectors()[case]["methods"][method]["expected"]


def token_batch(case: str, dtype: torch.dtype, *, anchor: str = "rollout", **more: Any) -> TokenBatch:
    """The inputs of a case; with anchor `old`, the vectors' mu in the place of pi_old unless the case has one."""
    inputs = vectors()[case]["inputs"]
    mask = torch.tensor(inputs["mask"]) > 0
    width = mask.shape[1]
    rollout = padded(inputs["mu_logp"], width, dtype)
    old = padded(inputs["old_logp"], width, dtype) if "old_logp" in inputs else rollout
    return TokenBatch(
        logp=padded(inputs["pi_logp"], width, dtype).requires_grad_(),
        rollout_logp=rollout,
        advantages=torch.tensor(inputs["adv"], dtype=dtype),
        response_mask=mask,
        old_logp=old if anchor == "old" else None,
        **more,
    )


def objective_with_gradient(batch: TokenBatch, algo: AlgoSpec) -> tuple[TokenObjective, Tensor]:
    """The objective, and the gradient [B, T] of the sum of its losses."""
    objective = token_objective(batch, algo)
    (gradient,) = torch.autograd.grad(objective.loss.sum(), batch.logp)
    return objective, gradient


def assert_equals_vector(case: str, method: str, batch: TokenBatch, algo: AlgoSpec) -> TokenObjective:
    """Loss, gradient, mask and every aggregate: to 1e-9 in float64; the same mask, and 1e-5, in float32."""
    want, width = expected(case, method), batch.logp.shape[1]
    tolerance = 1e-9 if batch.logp.dtype == torch.float64 else 2e-5
    objective, gradient = objective_with_gradient(batch, algo)
    for found, key in ((objective.loss, "loss_tok"), (gradient, "dlogp")):
        torch.testing.assert_close(
            found.detach().double(), padded(want[key], width, torch.float64), rtol=tolerance, atol=tolerance
        )
    if "keep" in want:
        kept = (objective.gate > 0) & batch.response_mask
        if objective.correction is not None:
            kept = kept & (objective.correction > 0)
        assert torch.equal(kept, padded(want["keep"], width, torch.float64) > 0)
    if "D" in want and objective.divergence is not None:
        torch.testing.assert_close(
            objective.divergence.double(),
            padded(want["D"], width, torch.float64),
            rtol=tolerance,
            atol=tolerance,
        )
    for key, aggregation in AGGREGATIONS.items():
        total = denominator(batch.response_mask, aggregation)
        value = float(aggregate(objective.loss.detach(), batch.response_mask, aggregation, total))
        assert abs(value - want["agg"][key]) <= tolerance * max(1, abs(want["agg"][key])), key
    return objective

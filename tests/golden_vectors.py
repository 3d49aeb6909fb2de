"""The golden vectors as batches, and each of their methods as coordinates.

tests/golden/vectors.json holds, per case, inputs and the expected arrays of each method, made in float64 by
an independent generator. Where a vector's parameters differ from a paper's, the coordinates here follow the
vector.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.spec import (
    AlgoSpec,
    BudgetSpec,
    CorrectionSpec,
    DivergenceSpec,
    SurrogateSpec,
    TrustRegionSpec,
    WeightSpec,
)

VECTORS = Path(__file__).parent / "golden" / "vectors.json"
TOKEN_CASES = ("base", "calib", "edge", "flip", "mismatch")


@cache
def vectors() -> dict[str, Any]:
    return json.loads(VECTORS.read_text())


def padded(rows: list[list[float]], width: int, dtype: torch.dtype) -> Tensor:
    out = torch.zeros(len(rows), width, dtype=dtype)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row, dtype=dtype)
    return out


def load(case: str, dtype: torch.dtype, *, use_old: bool = False) -> TokenBatch:
    inputs = vectors()[case]["inputs"]
    mask = torch.tensor(inputs["mask"]) > 0
    width = mask.shape[1]
    old = padded(inputs["old_logp"], width, dtype) if "old_logp" in inputs else None
    return TokenBatch(
        logp=padded(inputs["pi_logp"], width, dtype).requires_grad_(),
        rollout_logp=padded(inputs["mu_logp"], width, dtype),
        advantages=torch.tensor(inputs["adv"], dtype=dtype),
        response_mask=mask,
        old_logp=old if use_old else None,
    )


def expected(case: str, method: str) -> dict[str, Any]:
    return vectors()[case]["methods"][method]["expected"]


def expected_tensor(case: str, method: str, key: str) -> Tensor:
    width = len(vectors()[case]["inputs"]["mask"][0])
    value = expected(case, method)[key]
    if isinstance(value, list) and isinstance(value[0], list):
        return padded(value, width, torch.float64)
    return torch.tensor(value, dtype=torch.float64)


def _point(**parts: Any) -> AlgoSpec:
    anchor = parts.pop("anchor", "rollout")
    return AlgoSpec(name="golden", paper="", anchor=anchor, paper_anchor=anchor, **parts)


def _clip(low: float, high: float, dual: float | None = None, **parts: Any) -> AlgoSpec:
    region = TrustRegionSpec(kind="ratio_clip", clip_low=low, clip_high=high, dual_clip=dual)
    surrogate = parts.pop("surrogate", SurrogateSpec(kind="clipped"))
    return _point(trust_region=region, surrogate=surrogate, **parts)


def _dppo(divergence: str, delta: float, **surrogate: Any) -> AlgoSpec:
    return _point(
        divergence=DivergenceSpec(kind=divergence),
        trust_region=TrustRegionSpec(kind="divergence_threshold", delta=delta),
        surrogate=SurrogateSpec(**surrogate),
    )


def _trm(kind: str, delta_max: float, delta_mean: float) -> AlgoSpec:
    both = kind == "sequence_max_mean"
    return _point(
        divergence=DivergenceSpec(
            kind="k3" if kind == "sequence_mean" else "k2", mean_kind="k3" if both else "none"
        ),
        trust_region=TrustRegionSpec(
            kind=kind,
            delta=None if kind == "sequence_mean" else delta_max,
            delta_mean=None if kind == "sequence_max" else delta_mean,
        ),
    )


def _cppo(
    *,
    size: float = 0.015,
    budget: str = "fixed",
    ceiling: float = 2.0,
    weights: str = "linear",
    horizon: int | str = "own",
    gate: str = "hard",
    divergence: str = "binary_tv",
    delta: float = 0.15,
) -> AlgoSpec:
    return _point(
        divergence=DivergenceSpec(kind=divergence),
        trust_region=TrustRegionSpec(
            kind="prefix_budget",
            delta=delta,
            gate=gate,
            weights=WeightSpec(kind=weights, horizon=horizon),
            budget=BudgetSpec(kind=budget, size=size, ceiling=ceiling),
        ),
    )


POINTS: dict[str, AlgoSpec] = {
    "ppo_clip": _clip(0.2, 0.2),
    "ppo_dual_clip": _clip(0.2, 0.2, 3.0),
    "grpo_clip_higher": _clip(0.2, 0.28),
    "cispo": _point(surrogate=SurrogateSpec(kind="truncated", ratio_high=1.28)),
    "cispo_verl_bare_defaults": _point(
        surrogate=SurrogateSpec(kind="truncated", ratio_low=0.8, ratio_high=1.2)
    ),
    "cispo_cap5": _point(surrogate=SurrogateSpec(kind="truncated", ratio_high=5.0)),
    "minpro": _point(
        surrogate=SurrogateSpec(kind="truncated", ratio="prefix_minimum", ratio_low=0.8, ratio_high=1.28)
    ),
    "minpro_inclusive_variant": _point(
        surrogate=SurrogateSpec(
            kind="truncated", ratio="prefix_minimum", ratio_low=0.8, ratio_high=1.28, inclusive=True
        )
    ),
    "dppo_binary_tv": _dppo("binary_tv", 0.15),
    "dppo_binary_tv_cap": _dppo("binary_tv", 0.15, kind="truncated", ratio_high=1.25),
    "dppo_binary_kl": _dppo("binary_kl", 0.05),
    "cppo_fixed_0.015": _cppo(),
    "cppo_fixed_0.02": _cppo(size=0.02),
    "cppo_adaptive_0.02": _cppo(size=0.02, budget="adaptive"),
    "cppo_adaptive_0.02_cap5_early_verl_fork": _cppo(size=0.02, budget="adaptive", ceiling=5.0),
    "cppo_soft_0.02": _cppo(size=0.02, gate="inverse"),
    "cppo_no_position_weight": _cppo(weights="uniform"),
    "cppo_no_prefix_budget": _cppo(budget="none"),
    "cppo_shuffled_weights_no_prefix": _cppo(budget="none", weights="shuffled"),
    "cppo_binary_kl": _cppo(divergence="binary_kl", delta=0.1, size=0.002),
    "gspo": _clip(3e-4, 4e-4, surrogate=SurrogateSpec(kind="clipped", ratio="sequence")),
    "gspo_wide_for_test": _clip(0.3, 0.2, surrogate=SurrogateSpec(kind="clipped", ratio="sequence")),
    "gmpo": _point(
        trust_region=TrustRegionSpec(kind="ratio_clip", clip_low=0.4, clip_high=0.4, clip_space="log"),
        surrogate=SurrogateSpec(kind="geometric"),
    ),
    "sapo": _point(surrogate=SurrogateSpec(kind="sapo")),
    "drpo": _point(surrogate=SurrogateSpec(kind="quadratic")),
    "ctpo_cumprod": _point(
        trust_region=TrustRegionSpec(
            kind="ratio_clip", clip_low=0.025, clip_high=0.05, clip_space="log", clip_power=0.5
        ),
        surrogate=SurrogateSpec(kind="clipped", ratio="prefix_product"),
    ),
}

SEQUENCE_THRESHOLDS = {
    "trm_default": (0.05, 0.001),
    "trm_combined_default": (0.1, 0.002),
    "trm_loose_for_test": (0.05, 0.03),
}
SEQUENCE_KINDS = {"max": "sequence_max", "avg": "sequence_mean", "both": "sequence_max_mean"}


def sequence_point(method: str, which: str) -> AlgoSpec:
    return _trm(SEQUENCE_KINDS[which], *SEQUENCE_THRESHOLDS[method])


def padded_width_point(width: int) -> AlgoSpec:
    return _cppo(horizon=width)


OLD_ANCHOR_POINTS: dict[str, AlgoSpec] = {
    f"ppo_old_anchor_{name}": _clip(0.2, 0.28, anchor="old", correction=correction)
    for name, correction in {
        "plain": CorrectionSpec(),
        "x_tis_token": CorrectionSpec(kind="token_tis", high=2.0),
        "x_icepop": CorrectionSpec(kind="icepop", low=0.5, high=5.0),
        "x_tis_seq": CorrectionSpec(kind="sequence_tis", high=2.0),
        "x_mis_seq": CorrectionSpec(kind="mis", high=2.0),
    }.items()
}

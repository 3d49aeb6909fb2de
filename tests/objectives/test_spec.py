"""Specs refuse what makes no sense, in one sentence that names key, value and rule; and import with torch
alone."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from cppo_lab.objectives.spec import AlgoSpec, Requirements

VALID: dict[str, Any] = {
    "name": "point",
    "paper": "",
    "anchor": "rollout",
    "paper_anchor": "rollout",
    "divergence": {"kind": "binary_tv"},
    "trust_region": {
        "kind": "prefix_budget",
        "delta": 0.15,
        "weights": {"kind": "linear"},
        "budget": {"kind": "fixed", "size": 0.02},
    },
}


def changed(**overrides: Any) -> dict[str, Any]:
    """VALID with dotted keys (double underscore for a dot) replaced."""
    tree: dict[str, Any] = {key: _copy(value) for key, value in VALID.items()}
    for dotted, value in overrides.items():
        *path, last = dotted.split("__")
        group = tree
        for name in path:
            group = group.setdefault(name, {})
        group[last] = value
    return tree


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def test_the_valid_point_builds_and_is_hashable() -> None:
    spec = AlgoSpec.build(VALID)
    assert spec.trust_region.budget.size == 0.02
    assert hash(spec) == hash(AlgoSpec.build(VALID))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trust_region__delta": -1.0}, r"trust_region\.delta = -1\.0: must be greater than 0"),
        ({"trust_region__delta": float("nan")}, r"trust_region\.delta = nan: must be a number or null"),
        ({"trust_region__delta": None}, r"trust_region\.delta = None: .*prefix_budget needs a number"),
        ({"trust_region__kind": "trust"}, r"trust_region\.kind = 'trust': must be one of none, ratio_clip"),
        (
            {"trust_region__detla": 1.0},
            r"trust_region\.detla = 1\.0: unknown key \(did you mean 'delta'\?\); allowed here are kind,",
        ),
        (
            {"trust_region__weights__w_min": 0.0},
            r"trust_region\.weights\.w_min = 0\.0: must be greater than 0",
        ),
        ({"trust_region__weights__w_min": 1.5}, r"must be at most 1"),
        (
            {"trust_region__weights__horizon": "long"},
            r"horizon = 'long': must be a whole number or one of own",
        ),
        ({"trust_region__weights__horizon": 0}, r"horizon = 0: must be at least 1"),
        ({"trust_region__weights__w_min": True}, r"w_min = True: must be a number"),
        ({"trust_region__budget__quantile": 90}, r"quantile = 90: must be at most 1"),
        ({"trust_region__budget__ceiling": 0.5}, r"ceiling = 0\.5: must be at least 1"),
        (
            {"trust_region__budget__kind": "terminal", "trust_region__budget__slack": "none"},
            r"needs slack threshold",
        ),
        ({"divergence__kind": "none"}, r"divergence\.kind = 'none': .*prefix_budget needs one of binary_tv"),
        ({"divergence__k": 0}, r"divergence\.k = 0: must be at least 1"),
        ({"divergence__mean_kind": "k3"}, r"mean_kind = 'k3': needs trust_region\.kind sequence_max_mean"),
        (
            {"trust_region__clip_low": 0.2},
            r"clip_low = 0\.2: must be null; only .*ratio_clip, threshold_and_clip, moment_clip read it",
        ),
        (
            {"trust_region__dual_clip": 3.0},
            r"dual_clip = 3\.0: must be null; only trust_region\.kind ratio_clip reads it",
        ),
        ({"trust_region__delta_mean": 0.1}, r"delta_mean = 0\.1: must be null"),
        ({"trust_region__kind": "divergence_threshold"}, r"weights\.kind = 'linear': needs .*prefix_budget"),
        ({"surrogate__kind": "clipped"}, r"surrogate\.kind = 'clipped': needs trust_region\.kind ratio_clip"),
        (
            {"surrogate__ratio_high": 5.0},
            r"ratio_high = 5\.0: must be inf; only surrogate\.kind truncated reads it",
        ),
        (
            {"surrogate__kind": "sapo", "surrogate__ratio": "sequence"},
            r"ratio = 'sequence': .*token ratio only",
        ),
        (
            {"surrogate__inclusive": True},
            r"inclusive = True: must be False; only surrogate\.ratio prefix_minimum reads it",
        ),
        (
            {"correction__kind": "token_tis"},
            r"correction\.kind = 'token_tis': must be none with anchor rollout",
        ),
        ({"anchor": "old"}, r"anchor = 'old': .*set force_anchor"),
        ({"anchor": "old", "force_anchor": True, "divergence__kind": "topk_tv"}, r"needs anchor rollout"),
        (
            {"aggregation__horizon": 64},
            r"horizon = 64: must be null; only aggregation\.kind sequence_mean_token_sum_norm reads it",
        ),
        ({"regulariser__kl_coefficient": -0.1}, r"kl_coefficient = -0\.1: must be at least 0"),
        (
            {"trust_region__schedule": {"kind": "piecewise"}},
            r"piecewise needs at least one \[step, factor\] pair",
        ),
        (
            {"trust_region__schedule": {"kind": "piecewise", "points": [[10, 1.0], [5, 2.0]]}},
            r"steps must increase",
        ),
        (
            {"trust_region__gate": "inverse", "trust_region__schedule": {"kind": "target_share"}},
            r"target_share schedule needs the hard gate",
        ),
        ({"trust_region": 3}, r"trust_region = 3: must be a group of keys"),
    ],
)
def test_bad_values_are_refused_with_key_value_and_rule(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlgoSpec.build(changed(**overrides))


def test_the_other_anchor_is_accepted_when_forced() -> None:
    spec = AlgoSpec.build(changed(anchor="old", force_anchor=True))
    assert spec.requirements.needs_old_logp


@pytest.mark.parametrize(
    ("overrides", "field", "value"),
    [
        ({}, "needs_old_logp", False),
        ({"divergence__kind": "topk_tv", "divergence__k": 7}, "needs_topk", 7),
        ({"divergence__kind": "exact_kl"}, "needs_full_distribution", True),
        ({"regulariser__kl_coefficient": 0.1}, "needs_reference", True),
        ({"regulariser__entropy_coefficient": 0.1}, "needs_entropy", True),
        ({"advantage__kind": "gae"}, "needs_values", True),
        ({"trust_region__weights__kind": "shuffled"}, "needs_weight_order", True),
        ({"trust_region__schedule": {"kind": "target_share"}}, "needs_threshold_controller", True),
    ],
)
def test_requirements_name_what_the_coordinates_need(
    overrides: dict[str, Any], field: str, value: object
) -> None:
    needs = AlgoSpec.build(changed(**overrides)).requirements
    assert getattr(needs, field) == value
    plain = AlgoSpec.build(VALID).requirements
    changed_fields = [
        f.name for f in dataclasses.fields(Requirements) if getattr(needs, f.name) != getattr(plain, f.name)
    ]
    assert changed_fields == ([field] if overrides else [])


def test_the_package_imports_with_torch_and_the_standard_library_alone() -> None:
    blocked = [
        "pydantic",
        "omegaconf",
        "hydra",
        "yaml",
        "transformers",
        "pandas",
        "mlflow",
        "typer",
        "datasets",
    ]
    code = (
        "import sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        "import cppo_lab.objectives as objectives\n"
        "assert all(hasattr(objectives, name) for name in objectives.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""A method in words and as flat coordinates, for listings, tags and comparisons of two methods."""

from dataclasses import asdict
from typing import Any

from cppo_lab.objectives.spec import AlgoSpec, BudgetSpec, TrustRegionSpec

IDENTITY = ("name", "paper", "paper_anchor", "force_anchor")
"""Keys that say where a method comes from, not what it computes."""


def flatten(algo: AlgoSpec) -> dict[str, Any]:
    """Every coordinate by its dotted key under `algo`, without the method's identity."""
    return {key: value for key, value in _flat("", asdict(algo)).items() if key not in IDENTITY}


def difference(first: AlgoSpec, second: AlgoSpec) -> dict[str, tuple[Any, Any]]:
    """The coordinates in which two methods differ, as (first, second)."""
    one, other = flatten(first), flatten(second)
    return {key: (one[key], other[key]) for key in one if one[key] != other[key]}


def summary(algo: AlgoSpec) -> dict[str, str]:
    """The method as one short text per coordinate: anchor, advantage, divergence, trust region, and so on."""
    return {
        "anchor": algo.anchor,
        "advantage": algo.advantage.kind,
        "divergence": _divergence(algo),
        "trust_region": _trust_region(algo.trust_region),
        "surrogate": _surrogate(algo),
        "aggregation": algo.aggregation.kind,
    }


def _flat(prefix: str, tree: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        dotted = f"{prefix}.{key}" if prefix else key
        out.update(_flat(dotted, value) if isinstance(value, dict) else {dotted: value})
    return out


def _divergence(algo: AlgoSpec) -> str:
    spec = algo.divergence
    text: str = spec.kind
    if spec.kind.startswith("topk"):
        text += f" K={spec.k}" + (" replace" if spec.atoms == "replace" else "")
    if spec.kind.endswith("kl") and spec.direction == "reverse":
        text += " reverse"
    return text + (f", mean {spec.mean_kind}" if spec.mean_kind != "none" else "")


def _trust_region(spec: TrustRegionSpec) -> str:
    if spec.kind == "none":
        return "none"
    parts: list[str] = [spec.kind]
    if spec.kind == "ratio_clip":
        power = f" t^{spec.clip_power:g}" if spec.clip_power else ""
        space = " log" if spec.clip_space == "log" else ""
        parts.append(f"{spec.clip_low:g}/{spec.clip_high:g}{space}{power}")
        parts += [f"dual {spec.dual_clip:g}"] if spec.dual_clip is not None else []
    parts += [f"delta {spec.delta:g}"] if spec.delta is not None else []
    parts += [f"mean {spec.delta_mean:g}"] if spec.delta_mean is not None else []
    if spec.kind == "prefix_budget":
        weights = spec.weights
        parts.append("uniform" if weights.kind == "uniform" else f"{weights.kind} w_min {weights.w_min:g}")
        parts.append(_budget(spec.budget))
    parts += [f"{spec.gate} gate"] if spec.gate != "hard" else []
    return ", ".join(parts)


def _budget(spec: BudgetSpec) -> str:
    if spec.kind == "none":
        return "no budget"
    return f"{spec.kind} budget {spec.size:g}" + (" delta" if spec.relative else "")


def _surrogate(algo: AlgoSpec) -> str:
    spec = algo.surrogate
    parts: list[str] = [spec.kind]
    parts += [f"{spec.ratio} ratio"] if spec.ratio != "token" else []
    parts += [f"[{spec.ratio_low:g}, {spec.ratio_high:g}]"] if spec.kind == "truncated" else []
    parts += [f"epsilon {spec.penalty_epsilon:g}"] if spec.kind == "quadratic" else []
    parts += [f"x {algo.correction.kind}"] if algo.correction.kind != "none" else []
    return ", ".join(parts)

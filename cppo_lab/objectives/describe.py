"""A method in words and as flat coordinates, for listings, tags and comparisons of two methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.regularisers import RegulariserSpec
from cppo_lab.objectives.rules import Rules
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.objectives.trust_regions import TrustRegionSpec
from cppo_lab.objectives.weights import theorem_one_admits

IDENTITY = ("name", "paper", "paper_anchor", "force_anchor")
"""Keys that say where a method comes from, not what it computes."""


COORDINATES = ("anchor", "advantage", "divergence", "trust_region", "surrogate", "aggregation")
"""The keys of `summary`."""


def flatten(algo: AlgoSpec) -> dict[str, Any]:
    """Every coordinate by its dotted key under `algo`, without the method's identity."""
    return {key: value for key, value in _flat("", algo.as_dict()) if key not in IDENTITY}


def difference(first: AlgoSpec, second: AlgoSpec) -> dict[str, tuple[Any, Any]]:
    """The coordinates in which two methods differ, as (first, second)."""
    one, other = flatten(first), flatten(second)
    return {key: (one[key], other[key]) for key in one if one[key] != other[key]}


def summary(algo: AlgoSpec) -> dict[str, str]:
    """The method as one short text per coordinate: anchor, advantage, divergence, trust region, and so on.

    A correction is named beside the surrogate, whose loss it multiplies, and so are a selection and the penalty that
    pulls to the anchor.
    """
    surrogate = text_of(algo.surrogate)
    if not algo.correction.is_off:
        surrogate += f", x {text_of(algo.correction)}"
    if not algo.selection.is_off:
        surrogate += f", {text_of(algo.selection)}"
    if algo.regulariser.anchor_coefficient > 0:
        surrogate += f", {_anchor_penalty(algo.regulariser)}"
    return {
        "anchor": algo.anchor,
        "advantage": text_of(algo.advantage),
        "divergence": text_of(algo.divergence),
        "trust_region": _trust_region(algo.trust_region),
        "surrogate": surrogate,
        "aggregation": text_of(algo.aggregation),
    }


def text_of(coordinate: Coordinate, noun: str = "") -> str:
    """The selected kind and the values that distinguish it: `linear weights (w_min 0.8)`."""
    values = []
    for name, declared in coordinate.parameters().items():
        value = getattr(coordinate, name)
        if name == "kind" or isinstance(value, Coordinate) or not coordinate.reads(name):
            continue
        if value != declared.default or (declared.param.always_shown and not coordinate.is_off):
            values.append(f"{name} {yaml_text(value)}")
    text = f"{coordinate.kind} {noun}".rstrip()
    return f"{text} ({', '.join(values)})" if values else text


def yaml_text(value: object) -> str:
    """A value as a configuration file would have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "[]" if value == () else str(value)


def admitted(algo: AlgoSpec) -> str | None:
    """`admitted` or `not admitted` by CPPO's Theorem 1, for a method's position weights; None where it has none."""
    if not algo.trust_region.uses("weights"):
        return None
    return "admitted" if theorem_one_admits(algo.trust_region.weights) else "not admitted"


def rules_of(algo_class: type[Coordinate] = AlgoSpec, prefix: str = "") -> Iterator[tuple[str, Rules]]:
    """Every key under `algo` that selects a rule, with its registry; each registry once."""
    seen: set[int] = set()
    for key, rules in _selectors(algo_class, prefix):
        if id(rules) not in seen:
            seen.add(id(rules))
            yield key, rules


def _selectors(cls: type[Coordinate], prefix: str) -> Iterator[tuple[str, Rules]]:
    for name, rules in cls.selectors().items():
        yield f"{prefix}{name}", rules
    for name, declared in cls.parameters().items():
        if isinstance(declared.type, type) and issubclass(declared.type, Coordinate):
            yield from _selectors(declared.type, f"{prefix}{name}.")


def _flat(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        dotted = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from _flat(dotted, value)
        else:
            yield dotted, value


def _anchor_penalty(regulariser: RegulariserSpec) -> str:
    tokens = "" if regulariser.anchor_tokens == "all" else f" on {regulariser.anchor_tokens} tokens"
    return f"+ {regulariser.anchor_coefficient:g} (log ratio)^2{tokens}"


def _trust_region(region: TrustRegionSpec) -> str:
    parts = [text_of(region)]
    if region.uses("weights"):
        parts.append(text_of(region.weights, "weights"))
    if region.uses("budget"):
        parts.append("no budget" if region.budget.is_off else text_of(region.budget, "budget"))
    return ", ".join(parts)

"""The published methods by name, read from `conf/algo/NAME.yaml`; needs PyYAML, imported when called."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.objectives.validation import build
from cppo_lab.paths import conf_dir


def method_names() -> list[str]:
    """The names that `method` knows, sorted; files whose name starts with an underscore are parts of
    others."""
    return sorted(path.stem for path in _folder().glob("*.yaml") if not path.stem.startswith("_"))


def method(name: str, max_response_length: int | None = None) -> AlgoSpec:
    """The named method with its paper's values, validated.

    `max_response_length` fills in the horizon H of methods that divide by it. Raises ValueError for an
    unknown name, ImportError without PyYAML.
    """
    known = method_names()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"algo = {name!r}: no such method{hint}; known: {', '.join(known)}")
    algo = build(AlgoSpec, _tree(name))
    return algo if max_response_length is None else algo.with_horizon(max_response_length)


def _folder() -> Path:
    return conf_dir() / "algo"


def _tree(name: str) -> dict[str, Any]:
    import yaml

    raw = yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    merged: dict[str, Any] = {}
    for base in raw.pop("defaults", ["_self_"]):
        merged = _merge(merged, raw if base == "_self_" else _tree(base))
    return merged


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged

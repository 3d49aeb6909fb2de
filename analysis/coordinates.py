"""What a method is and which setting its paper gives, from its coordinates and not from its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cppo_lab.analysis.grids import RATE, THRESHOLD
from cppo_lab.method_files import method_files, method_values, yaml_file
from cppo_lab.paths import conf_dir

_OFF = {"trust_region.kind": "none", "surrogate.kind": "ratio", "correction.kind": "none"}


def has_no_rule(values: Mapping[str, Any]) -> bool:
    """Whether a method with these values (dotted keys of `algo`; absent ones are neutral) is the importance-weighted
    policy gradient: no trust region, no gate, nothing that bends the ratio, no penalty.
    """
    weights = (value for key, value in values.items() if key.endswith("_coefficient"))
    is_off = all(str(values.get(key, off)) == off for key, off in _OFF.items())
    return is_off and all(weight in (None, 0) for weight in weights)


def named_without_rule(methods: Iterable[str]) -> frozenset[str]:
    """Those of the named methods whose files say so."""
    known = method_files()
    return frozenset(name for name in methods if name in known and has_no_rule(method_values(name)))


def published(method: str, axis: str) -> float | None:
    """The value of `axis` (`algo.trust_region.delta`) in the file of a method, which is its paper's; None without one.

    Of the learning rate it is the trainer's default, and of an axis of multiples of the main threshold 1.
    """
    if axis == THRESHOLD:
        return 1.0
    if axis == RATE:
        return _number(yaml_file(conf_dir() / "trainer" / "default.yaml").get("lr"))
    return (
        _number(method_values(method).get(axis.removeprefix("algo."))) if axis.startswith("algo.") else None
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

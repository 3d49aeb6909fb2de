"""Checks on the fields of a spec: types, allowed choices, numbers that are not NaN. Standard library only.

Every message has one form: `key = value: must be ...`, with the key as it is written under `algo`.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Spec = TypeVar("Spec")

FORBID_UNKNOWN_KEYS = {"extra": "forbid"}
"""The `__pydantic_config__` of every spec, for callers that validate with pydantic."""


def field_types(cls: type) -> dict[str, Any]:
    """The resolved type of each dataclass field of `cls`."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def join(key: str, name: str) -> str:
    """`join("trust_region", "delta")` is "trust_region.delta"; an empty prefix gives the bare name."""
    return f"{key}.{name}" if key else name


def fail(key: str, value: object, rule: str) -> ValueError:
    """The error to raise for a value that breaks `rule`."""
    return ValueError(f"{key} = {value!r}: {rule}")


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _accepts(annotation: Any, value: object) -> bool:
    if get_origin(annotation) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        return isinstance(value, tuple)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is type(None):
        return value is None
    return isinstance(value, annotation)


_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


def _describe(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "a list of [step, value] pairs"
    if is_dataclass(annotation):
        return "a group of keys"
    return _WORDS[annotation]


def check_fields(spec: Any, key: str) -> None:
    """Raise ValueError for a field whose value its type does not allow (choice unknown, NaN, wrong type)."""
    for name, annotation in field_types(type(spec)).items():
        value = getattr(spec, name)
        options = _alternatives(annotation)
        if not any(_accepts(option, value) for option in options):
            rule = "must be " + " or ".join(_describe(option) for option in options)
            raise fail(join(key, name), value, rule)


def check_range(
    key: str,
    value: float | None,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    finite: bool = True,
) -> None:
    """Raise ValueError unless `value` (None passes) lies in the range; `finite` refuses infinity."""
    if value is None:
        return
    if finite and math.isinf(value):
        raise fail(key, value, "must be finite")
    if above is not None and not value > above:
        raise fail(key, value, f"must be greater than {above:g}")
    if at_least is not None and not value >= at_least:
        raise fail(key, value, f"must be at least {at_least:g}")
    if at_most is not None and not value <= at_most:
        raise fail(key, value, f"must be at most {at_most:g}")


def build(cls: type[Spec], tree: Mapping[str, Any], key: str = "") -> Spec:
    """Make a (nested) spec from plain mappings, as read from YAML.

    Raises ValueError naming an unknown key (with the nearest known one) or a missing one.
    """
    annotations = field_types(cls)
    for name in tree:
        if name not in annotations:
            near = get_close_matches(str(name), annotations, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            known = ", ".join(annotations)
            raise ValueError(f"{join(key, str(name))}: unknown key{hint}; allowed here: {known}")
    arguments: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name not in tree:
            if field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{join(key, field.name)}: missing")
            continue
        value = tree[field.name]
        annotation = annotations[field.name]
        if is_dataclass(annotation):
            if not isinstance(value, Mapping):
                raise fail(join(key, field.name), value, "must be a group of keys")
            value = build(annotation, value, join(key, field.name))  # type: ignore[arg-type]
        elif isinstance(value, list):
            value = tuple(tuple(item) if isinstance(item, list) else item for item in value)
        arguments[field.name] = value
    return cls(**arguments)

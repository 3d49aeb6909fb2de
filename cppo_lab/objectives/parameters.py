"""Typed parameters: a type, a range and a default, read from annotations. Standard library only.

    w_min: Annotated[float, Param(default=0.8, above=0, at_most=1)]

Every refusal has one form, `key = value: rule`, with the key as it is written under `algo`.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin


class _Required:
    def __repr__(self) -> str:
        return "(required)"


REQUIRED: Any = _Required()
"""The default of a parameter that has none."""


@dataclass(frozen=True, kw_only=True)
class Param:
    """What an annotation says of a parameter besides its type. Infinity and NaN are refused unless allowed."""

    default: Any = REQUIRED
    """A default in the signature takes precedence."""
    about: str = ""
    above: float | str | None = None
    """Exclusive lower bound: a number, or the name of another key of the same group."""
    at_least: float | str | None = None
    """Inclusive lower bound: a number, or the name of another key of the same group."""
    at_most: float | None = None
    infinite: bool = False
    """Accept infinity."""
    scheduled: bool = False
    """A threshold, multiplied by the factor of the group's `schedule`."""
    refuse_unread: bool = False
    """Refuse another value than the default where the selected rule does not read it, as is done if it is required."""
    neutral: Any = REQUIRED
    """The value that leaves identities of runs alone, for a default that was changed; else the default."""
    always_shown: bool = False
    """Show it in listings even at its default."""
    main_from: float | None = None
    """It is (part of) the main threshold of a rule; multiples are of its distance from this value. None: it is not."""
    tightens: bool = False
    """A larger value of the main threshold lets the policy move less: multiples divide it."""


@dataclass(frozen=True)
class Parameter:
    """A named, typed parameter of a rule, or a key of a coordinate."""

    name: str
    type: Any
    default: Any = REQUIRED
    param: Param = field(default_factory=Param)

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED

    @property
    def range(self) -> str:
        """The range in mathematical notation, `(0, 1]`; empty for a type without order or bounds."""
        limits = self.param
        low = limits.at_least if limits.above is None else limits.above
        if low is None and limits.at_most is None:
            return ""
        opening = "[" if limits.above is None and low is not None else "("
        upper = "inf" if limits.at_most is None else f"{limits.at_most:g}"
        closing = "]" if limits.infinite or limits.at_most is not None else ")"
        return f"{opening}{'-inf' if low is None else low if isinstance(low, str) else f'{low:g}'}, {upper}{closing}"

    def coerced(self, value: Any) -> Any:
        """`value` as plain frozen data: a list becomes a tuple, a whole number a float where only a float is meant."""
        return _coerced(self.type, value)

    def check_type(self, key: str, value: Any) -> None:
        """Raise ValueError unless `value` has the type."""
        options = alternatives(self.type)
        if not any(_accepts(option, value) for option in options):
            raise fail(key, value, "must be " + " or ".join(_described(option) for option in options))

    def least(self, siblings: Mapping[str, Any]) -> float | None:
        """The inclusive lower bound beside the values `siblings` of the other keys; None without one."""
        bound = self.param.at_least
        found: float | None = siblings[bound] if isinstance(bound, str) else bound
        return found

    def check_range(self, key: str, value: Any, siblings: Mapping[str, Any]) -> None:
        """Raise ValueError unless a number lies in the range; `siblings` are the values of the keys beside it."""
        if not isinstance(value, float | int) or isinstance(value, bool):
            return
        limits = self.param
        above = siblings[limits.above] if isinstance(limits.above, str) else limits.above
        at_least = self.least(siblings)
        if math.isinf(value) and not limits.infinite:
            raise fail(key, value, "must be finite")
        if above is not None and not value > above:
            raise fail(key, value, f"must be greater than {above:g}")
        if at_least is not None and not value >= at_least:
            raise fail(key, value, f"must be at least {at_least:g}")
        if limits.at_most is not None and not value <= limits.at_most:
            raise fail(key, value, f"must be at most {limits.at_most:g}")


def parameter(name: str, annotation: Any, default: Any = REQUIRED) -> Parameter:
    """The parameter that `name: annotation = default` declares."""
    param = Param()
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        param = next((extra for extra in extras if isinstance(extra, Param)), param)
    return Parameter(name, annotation, param.default if default is REQUIRED else default, param)


@functools.cache
def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union type; a lone type is its own."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def join(prefix: str, name: str) -> str:
    """`join("trust_region", "delta")` is "trust_region.delta"; an empty prefix gives the bare name."""
    return f"{prefix}.{name}" if prefix else name


def fail(key: str, value: object, rule: str) -> ValueError:
    """The error to raise for a value that breaks `rule`."""
    return ValueError(f"{key} = {_as_list(value)!r}: {rule}")


def _as_list(value: object) -> object:
    """Sequences as a configuration file writes them."""
    return [_as_list(item) for item in value] if isinstance(value, tuple) else value


def _coerced(annotation: Any, value: Any) -> Any:
    options = alternatives(annotation)
    if isinstance(value, list | tuple):
        inner = next((get_args(option) for option in options if get_origin(option) is tuple), ())
        each = inner[0] if inner[-1:] == (...,) else None
        return tuple(
            _coerced(each or (inner[at] if at < len(inner) else Any), item) for at, item in enumerate(value)
        )
    return float(value) if float in options and int not in options and type(value) is int else value


def _accepts(annotation: Any, value: object) -> bool:
    if annotation is Any:
        return True
    if get_origin(annotation) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        return _accepts_items(get_args(annotation), value)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, type(None) if annotation is None else annotation)


def _accepts_items(items: tuple[Any, ...], value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    if items[-1:] == (...,):
        return all(_accepts(items[0], item) for item in value)
    return len(items) == len(value) and all(map(_accepts, items, value))


_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def _described(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        if items[-1:] == (...,):
            return f"a list, each item {_described(items[0])}"
        return f"[{', '.join(_described(item) for item in items)}]"
    if annotation in (None, type(None)):
        return "null"
    return _WORDS.get(annotation, "a group of keys")

"""`Coordinate`: a frozen group of keys of a method, with the parameters of all rules it can select.

A subclass annotates its own keys; a key annotated with a registry of rules selects one of them, and the parameters of
every rule of that registry become keys beside it, so that a configuration file always has the same keys. A
parameter of a rule that is not selected is kept, so that an ablation changes one key, or refused (`Param`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from cppo_lab.errors import near_miss
from cppo_lab.objectives.parameters import REQUIRED, Parameter, fail, join, parameter
from cppo_lab.objectives.rules import Rule, Rules, check_known

OFF = "none"
"""The kind that switches a coordinate off."""


class Coordinate:
    """Keys as attributes; immutable, hashable, equal when all values are.

    Raises ValueError for an unknown or missing key, a value of the wrong type or out of range, and a combination that
    makes no sense.
    """

    path: ClassVar[str] = ""
    """Its dotted key under `algo`, for messages."""
    _own: ClassVar[dict[str, Parameter]] = {}
    _selectors: ClassVar[dict[str, Rules]] = {}
    _merged: ClassVar[tuple[tuple[int, ...], Mapping[str, Parameter]] | None] = None

    def __init_subclass__(cls, path: str = "") -> None:
        cls.path = path
        cls._own, cls._selectors, cls._merged = {}, {}, None
        for name, annotation in get_type_hints(cls, include_extras=True).items():
            if get_origin(annotation) is ClassVar or name.startswith("_"):
                continue
            default = getattr(cls, name, REQUIRED)
            cls._own[name] = parameter(name, annotation, default)
            for extra in get_args(annotation)[1:] if get_origin(annotation) is Annotated else ():
                if isinstance(extra, Rules):
                    cls._selectors[name] = extra

    def __init__(self, **values: Any) -> None:
        self._fill(values, self.path)

    @classmethod
    def build(cls, tree: Mapping[str, Any], path: str = "") -> Self:
        """The coordinate that a (nested) mapping, as read from YAML, describes; `path` is where it lies."""
        made = cls.__new__(cls)
        made._fill(tree, path)
        return made

    @classmethod
    def parameters(cls) -> Mapping[str, Parameter]:
        """Every key: its own, then the parameters of the rules it can select, with the defaults they have here."""
        registered = tuple(rules.additions for rules in cls._selectors.values())
        if cls._merged is None or cls._merged[0] != registered:
            cls._merged = registered, MappingProxyType(cls._merge())
        return cls._merged[1]

    @classmethod
    def _merge(cls) -> dict[str, Parameter]:
        found = dict(cls._own)
        for rules in cls._selectors.values():
            for name, each in rules.parameters().items():
                optional = Parameter(name, each.type | None, None, each.param) if each.is_required else each
                found.setdefault(name, optional)
        return found

    @classmethod
    def selectors(cls) -> dict[str, Rules]:
        """The keys that select a rule, with its registry."""
        return dict(cls._selectors)

    def selected(self) -> dict[str, Rule]:
        """The rule behind each selecting key."""
        return {name: rules[getattr(self, name)] for name, rules in self._selectors.items()}

    @property
    def is_off(self) -> bool:
        """Whether its kind is `none`."""
        return bool(self.kind == OFF)

    def rule(self, selector: str = "kind", overrides: Mapping[str, Any] | None = None) -> Callable[..., Any]:
        """The selected function with its parameters bound to the values here, or to those of `overrides`."""
        rule = self.selected()[selector]
        values = {each.name: getattr(self, each.name) for each in rule.parameters}
        return functools.partial(rule.function, **{**values, **(overrides or {})})

    def reads(self, name: str) -> bool:
        """Whether a key acts: it is the coordinate's own, or a parameter of a selected rule."""
        return name in self._own or any(rule.reads(name) for rule in self.selected().values())

    def replace(self, **changes: Any) -> Self:
        """The same coordinate with some keys changed."""
        return type(self)(**{**self._values(), **changes})

    def as_dict(self) -> dict[str, Any]:
        """Every key with its value as plain data."""
        return {
            name: value.as_dict() if isinstance(value, Coordinate) else value
            for name, value in self._values().items()
        }

    def neutral_fields(self) -> Iterator[tuple[str, Any, Any]]:
        """Name, value and neutral value of every key; a key that does not act is neutral whatever its value."""
        for name, each in self.parameters().items():
            value = getattr(self, name)
            neutral = each.default if each.param.neutral is REQUIRED else each.param.neutral
            yield name, value, neutral if self.reads(name) else value

    def check(self, path: str) -> None:
        """Raise ValueError for values that do not go together; for subclasses."""

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.parameters()}

    def _fill(self, values: Mapping[str, Any], path: str) -> None:
        keys = self.parameters()
        for name in values:
            if name not in keys:
                near = near_miss(str(name), keys).replace(" Did", " (did", 1)
                rule = f"unknown key{near + ')' if near else ''}; allowed here are {', '.join(keys)}"
                raise fail(join(path, str(name)), values[name], rule)
        filled = vars(self)
        for name, each in keys.items():
            if name not in values and each.is_required:
                raise ValueError(f"{join(path, name)}: needs a value")
            filled[name] = self._converted(each, values.get(name, each.default), join(path, name))
        for name, each in keys.items():
            if name in self._selectors:
                check_known(join(path, name), filled[name], self._selectors[name])
            each.check_type(join(path, name), filled[name])
        for name, each in keys.items():
            # The number as it was written: 90, not 90.0.
            written = values.get(name, filled[name])
            each.check_range(join(path, name), written, filled)
        self._check_read(path)
        self.check(path)

    @staticmethod
    def _converted(declared: Parameter, value: Any, path: str) -> Any:
        if isinstance(declared.type, type) and issubclass(declared.type, Coordinate):
            if isinstance(value, Mapping):
                return declared.type.build(value, path)
            if not isinstance(value, declared.type):
                raise fail(path, value, "must be a group of keys")
            return value
        return declared.coerced(value)

    def _check_read(self, path: str) -> None:
        """Raise ValueError for a required parameter that is not set, and for one that is set in vain."""
        for selector, rules in self._selectors.items():
            selected = f"{join(path, selector)} {getattr(self, selector)}"
            for name, declared in rules.parameters().items():
                value = getattr(self, name)
                if declared.is_required and self.reads(name) and value is None:
                    raise fail(join(path, name), value, f"{selected} needs a number")
                default = None if declared.is_required else declared.default
                refused = declared.is_required or declared.param.refuse_unread
                if refused and not self.reads(name) and value != default:
                    readers = rules.that_read(name)
                    verb = "reads" if len(readers) == 1 else "read"
                    shown = "null" if default is None else default
                    raise fail(
                        join(path, name),
                        value,
                        f"must be {shown}; only {join(path, selector)} {', '.join(readers)} {verb} it",
                    )

    def __getattr__(self, name: str) -> Any:
        # A parameter of a rule that was registered after this object was made has its default.
        if not name.startswith("_") and name in (keys := type(self).parameters()):
            return keys[name].default
        raise AttributeError(f"{type(self).__name__} has no key {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: use replace({name}=...)")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        keys = self.parameters()
        changed = {(name, value) for name, value in self._values().items() if value != keys[name].default}
        return hash((type(self), frozenset(changed)))

    def __repr__(self) -> str:
        keys = self.parameters()
        shown = ", ".join(f"{n}={v!r}" for n, v in self._values().items() if v != keys[n].default)
        return f"{type(self).__name__}({shown})"

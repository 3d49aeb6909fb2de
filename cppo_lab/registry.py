"""Registries: every kind of part (a rule, a task, an engine, a figure) by name, built-in or from a plug-in.

A built-in part registers exactly as an outsider's does. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from cppo_lab.errors import near_miss

Part = TypeVar("Part")


@dataclass(frozen=True)
class Entry(Generic[Part]):
    """One registered part. `about` is its one-line description, `origin` the module that registered it."""

    name: str
    part: Part
    about: str
    paper: str | None
    origin: str

    @property
    def is_built_in(self) -> bool:
        """Whether it ships with the lab."""
        return self.origin.split(".")[0] == "cppo_lab"


class Registry(Mapping[str, Part]):
    """The parts of one kind, in the order in which they were registered."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[Part]] = {}

    def register(
        self, name: str, *, about: str, paper: str | None = None, origin: str | None = None
    ) -> Callable[[Part], Part]:
        """A decorator that adds a part under `name`; `origin`: the module that it is from, where it cannot tell itself.

        Raises ValueError for a name that another module has taken; a module that is loaded again replaces its own.
        """

        def add(part: Part) -> Part:
            self.add(Entry(name, part, about, paper, str(origin or getattr(part, "__module__", ""))))
            return part

        return add

    def add(self, entry: Entry[Part]) -> None:
        """Add a part with its description. Raises ValueError as `register` does."""
        taken = self._entries.get(entry.name)
        if taken is not None and taken.origin != entry.origin:
            raise ValueError(f"{self.kind} {entry.name!r} is already registered by {taken.origin}")
        self._entries[entry.name] = entry

    def entry(self, name: str) -> Entry[Part]:
        """The registered part with its description. Raises ValueError for an unknown name."""
        if name not in self._entries:
            allowed = ", ".join(self._entries)
            raise ValueError(
                f"{self.kind} {name!r}: unknown; allowed are {allowed}.{near_miss(name, self._entries)}"
            )
        return self._entries[name]

    def entries(self) -> tuple[Entry[Part], ...]:
        """All of them."""
        return tuple(self._entries.values())

    def __getitem__(self, name: str) -> Part:
        if name not in self._entries:
            raise KeyError(name)
        return self._entries[name].part

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

"""Identities when the schema grows: a new key moves none while it has its neutral value, and each one otherwise.

Running this file adds the neutral values of new keys to `tests/pinned/neutral_values.json`, and changes no line of it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, create_model

from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import acting_keys, fields_of, first_keys, is_group, run_id, starting_policy_id
from cppo_lab.config.schema import RunConfig
from cppo_lab.objectives.coordinate import Coordinate

PINNED = Path(__file__).parents[1] / "pinned" / "neutral_values.json"
# Between them these have every class of every group.
KINDS = {
    "scratch, chain, native": [],
    "gsm8k, vllm": ["task=gsm8k", "engine=vllm"],
    "pretrained, dapo_math": ["recipe=qwen3_1.7b_base"],
}
OF_THE_STARTING_POLICY = ("model", "task", "warmup")


def groups(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The place of every group of keys, the whole configuration (the empty place) included."""
    yield path
    for name, value, _ in fields_of(node):
        if is_group(value):
            yield from groups(value, (*path, name))


def with_new_key(node: Any, value: Any, neutral: Any) -> Any:
    """A copy of a group whose class has one more key."""
    old = type(node)
    if isinstance(node, BaseModel):
        new_key: Any = (Any, Field(default=neutral))
        grown = create_model(old.__name__, __base__=old, __module__=old.__module__, new_key=new_key)
        return grown.model_construct(
            **{name: getattr(node, name) for name in old.model_fields}, new_key=value
        )
    if isinstance(node, Coordinate):
        body = {"__annotations__": {"new_key": Any}, "new_key": neutral}
        return type(old.__name__, (old,), body)(**{name: v for name, v, _ in fields_of(node)}, new_key=value)
    field = ("new_key", Any, dataclasses.field(default=neutral))
    made = object.__new__(
        dataclasses.make_dataclass(old.__name__, [field], bases=(old,), frozen=True, kw_only=True)
    )
    for each in dataclasses.fields(node):
        object.__setattr__(made, each.name, getattr(node, each.name))
    object.__setattr__(made, "new_key", value)
    return made


def grown(node: Any, path: tuple[str, ...], value: Any, neutral: Any = "neutral") -> Any:
    """A copy of a configuration in which the group at `path` has one more key."""
    if not path:
        return with_new_key(node, value, neutral)
    changed = copy.copy(node)
    object.__setattr__(changed, path[0], grown(getattr(node, path[0]), path[1:], value, neutral))
    return changed


def identities(config: RunConfig) -> tuple[str, str]:
    return run_id(config), starting_policy_id(config)


@pytest.mark.parametrize("overrides", KINDS.values(), ids=KINDS)
def test_a_new_key_at_its_neutral_value_moves_no_identity(overrides: list[str]) -> None:
    config = compose_run(overrides)
    places = list(groups(config))
    assert len(places) > 15
    for place in places:
        assert identities(grown(config, place, "neutral")) == identities(config), place


@pytest.mark.parametrize("overrides", KINDS.values(), ids=KINDS)
def test_a_new_key_at_another_value_moves_the_identity(overrides: list[str]) -> None:
    config = compose_run(overrides)
    for place in groups(config):
        if place[:1] in (("paths",), ("tracking",)):
            continue
        run, start = identities(grown(config, place, "other"))
        assert run != run_id(config), place
        assert (start != starting_policy_id(config)) == (place[:1] in zip(OF_THE_STARTING_POLICY)), place


def test_a_key_without_neutral_value_always_counts() -> None:
    @dataclasses.dataclass(frozen=True)
    class Group:
        needed: int

    assert acting_keys(Group(1), "trainer") == {"needed": 1}


def test_a_default_that_changes_keeps_the_neutral_value_of_before() -> None:
    @dataclasses.dataclass(frozen=True)
    class Group:
        rate: int = dataclasses.field(default=2, metadata={"neutral": 1})

    assert acting_keys(Group(1), "trainer") == {}
    assert acting_keys(Group(), "trainer") == {"rate": 2}


def added_keys() -> dict[str, Any]:
    """Every key of the schema that is not among the first, with its neutral value."""

    def walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, value, neutral in fields_of(node):
            key = f"{path}.{name}" if path else name
            if key in ("model", "task", "engine"):
                key = f"{key}[{value.kind}]"
            if is_group(value):
                yield from walk(value, key)
            elif key not in first_keys():
                yield key, json.loads(json.dumps(neutral, default=str))

    return {key: value for overrides in KINDS.values() for key, value in walk(compose_run(overrides), "")}


def test_neutral_values_of_added_keys_are_pinned() -> None:
    """A default that changed without `neutral` would give another computation the identity of an old one."""
    assert added_keys() == json.loads(PINNED.read_text(encoding="utf-8")), f"run {Path(__file__).name}"


if __name__ == "__main__":
    known = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.exists() else {}
    PINNED.write_text(json.dumps(added_keys() | known, indent=1, sort_keys=True) + "\n", encoding="utf-8")

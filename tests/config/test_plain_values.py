"""Values set in plain data give the tree that OmegaConf gives."""

from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cppo_lab.config import compose
from cppo_lab.config.compose import compose_trees
from cppo_lab.config.plain_values import PlainTree, plain_tree
from cppo_lab.sweeps.sweep import find_sweep

CONFIG = {
    "seed": 0,
    "seeds": {"prompts": "${seed}", "sampling": "${seed}"},
    "paths": {"output": "outputs", "model": "${paths.output}/model"},
    "list": [1, 2],
    "nothing": None,
    "rate": 0.5,
    "name": "s",
    "own": {"path": "p", "name": "${.path}"},
}


def by_omegaconf(values: list[tuple[str, Any]]) -> Any:
    config = OmegaConf.create(CONFIG)
    for key, value in values:
        OmegaConf.update(config, key, value, merge=True)
    return OmegaConf.to_container(config, resolve=True)


def plain(config: dict[str, Any] = CONFIG) -> PlainTree:
    found = plain_tree(OmegaConf.create(config))
    assert found is not None
    return found


KEYS = [
    "seed",
    "seeds.prompts",
    "paths.output",
    "paths.model",
    "list",
    "nothing",
    "rate",
    "name",
    "own.path",
    "own.name",
]
SCALARS = st.one_of(
    st.integers(-3, 3),
    st.floats(0, 1),
    st.booleans(),
    st.none(),
    st.sampled_from(["", "a", "${seed}", "${rate}", "${.x}"]),
)


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(SCALARS, st.lists(st.integers(0, 2), max_size=2))))
)
def test_the_tree_is_that_of_omegaconf_wherever_there_is_one(values: list[tuple[str, Any]]) -> None:
    found = plain().with_values(values)
    event("by OmegaConf" if found is None else "plain")
    if found is not None:
        assert found == by_omegaconf(values)


@pytest.mark.parametrize(
    "values",
    [
        [("rate", 2)],
        [("name", "m"), ("list", [3])],
        [("nothing", 1.5)],
        [("rate", 1), ("rate", 2)],
    ],
)
def test_plain_values_need_no_omegaconf_unless_an_interpolation_reads_them(
    values: list[tuple[str, Any]],
) -> None:
    assert plain().with_values(values) == by_omegaconf(values)


def test_a_reference_follows_the_key_that_it_names() -> None:
    config = {"seed": 0, "warmup": {"seed": 7}, "seeds": {"prompts": "${seed}"}}
    found = plain(config).with_values([("seed", 3), ("warmup.seed", "${seed}")])
    assert found == {"seed": 3, "warmup": {"seed": 3}, "seeds": {"prompts": 3}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("paths.output", "elsewhere"),  # read by paths.model
        ("unknown", 1),
        ("seeds", 1),
        ("list", {"a": 1}),
        ("name", "${oc.env:HOME}"),
        ("name", "\\${seed}"),
        ("name", "???"),
        ("name", "${seeds.prompts}"),  # a reference to a reference
        ("own.path", "elsewhere"),  # read by own.name
    ],
)
def test_what_only_omegaconf_can_tell_is_left_to_it(key: str, value: Any) -> None:
    assert plain().with_values([(key, value)]) is None


def test_a_configuration_with_an_open_value_is_left_to_omegaconf() -> None:
    assert plain_tree(OmegaConf.create({"delta": "???"})) is None


@pytest.mark.parametrize("name", ["long_runs", "delta_sensitivity"])
def test_the_runs_of_a_sweep_are_those_that_omegaconf_composes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    combinations = [run.overrides for run in find_sweep(name, [], None)[0].runs][::40]
    quickly = compose_trees(combinations)
    monkeypatch.setattr(compose, "plain_tree", lambda config: None)
    assert quickly == compose_trees(combinations)

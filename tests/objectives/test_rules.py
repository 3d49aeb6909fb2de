"""Registering rules: what is refused, and a plug-in's rule in every place that knows the built-in ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest

from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.rules import RESERVED, Rules

REPOSITORY = Path(__file__).parents[2]
PLUGIN = REPOSITORY / "examples" / "my_rule"


def registry() -> Rules:
    rules = Rules("thing.kind")

    @rules.register("first", about="the first")
    def first(*, size: Annotated[float, Param(default=0.5, above=0)]) -> float:
        return size

    return rules


def test_rules_that_share_a_parameter_must_declare_it_alike() -> None:
    rules = registry()
    with pytest.raises(
        ValueError, match="its parameter size has another type, range or default than that of first"
    ):

        @rules.register("second", about="the second")
        def second(*, size: Annotated[float, Param(default=0.7, above=0)]) -> float:
            return size


def test_a_taken_name_an_unknown_need_and_a_parameter_without_a_type_are_refused() -> None:
    rules = registry()
    with pytest.raises(ValueError, match=r"thing\.kind 'first' is already registered by"):
        rules.register("first", about="another")(_from_elsewhere())
    with pytest.raises(ValueError, match="needs 'tokens'; allowed are old_logp"):
        rules.register("third", about="the third", needs=["tokens"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="its parameter size needs a type"):
        rules.register("fourth", about="the fourth")(_untyped)
    with pytest.raises(ValueError, match="a parameter cannot be called replace"):
        rules.register("fifth", about="the fifth")(_reserved)


def _from_elsewhere() -> Any:
    def first() -> float:
        return 1.0

    first.__module__ = "elsewhere"
    return first


def _untyped(*, size=1.0):  # type: ignore[no-untyped-def]
    return size


def _reserved(*, replace: float = 1.0) -> float:
    return replace


def test_no_parameter_can_hide_an_attribute_of_a_coordinate() -> None:
    assert {name for name in dir(Coordinate) if not name.startswith("_")} == RESERVED


def test_parameters_of_unselected_rules_are_kept_or_refused_as_declared() -> None:
    kinds = Rules("kind")

    @kinds.register("plain", about="no parameter")
    def plain() -> float:
        return 0.0

    @kinds.register("rich", about="three parameters")
    def rich(
        *,
        needed: Annotated[float, Param(above=0)],
        kept: Annotated[float, Param(default=1.0)],
        refused: Annotated[float, Param(default=1.0, refuse_unread=True)],
    ) -> float:
        return needed + kept + refused

    made = type("Thing", (Coordinate,), {"__annotations__": {"kind": Annotated[str, kinds]}, "kind": "plain"})
    assert made(kept=3).kept == 3.0
    assert made(kind="rich", needed=2, kept=3).rule()() == 6.0
    for values, message in (
        ({"needed": 1.0}, "needed = 1.0: must be null; only kind rich reads it"),
        ({"refused": 2.0}, "refused = 2.0: must be 1.0; only kind rich reads it"),
        ({"kind": "rich"}, "needed = None: kind rich needs a number"),
        ({"kind": "rhic"}, r"kind = 'rhic': must be one of plain, rich \(did you mean 'rich'\?\)"),
    ):
        with pytest.raises(ValueError, match=message):
            made(**values)
    neutral = {name: (value, other) for name, value, other in made(kept=3.0).neutral_fields()}
    assert neutral["kept"] == (3.0, 3.0), "a parameter that nothing reads is neutral whatever its value"


def test_coordinates_are_immutable_values() -> None:
    from cppo_lab.objectives.spec import WeightSpec

    spec = WeightSpec(kind="linear", w_min=0.5)
    with pytest.raises(AttributeError, match=r"use replace\(w_min=\.\.\.\)"):
        spec.w_min = 0.6
    with pytest.raises(AttributeError, match="WeightSpec has no key 'w_max'"):
        _ = spec.w_max
    assert spec.replace(w_min=0.8) == WeightSpec(kind="linear")
    assert repr(spec) == "WeightSpec(kind='linear', w_min=0.5)"


WITH_THE_PLUGIN = """
import json, sys
import torch
from cppo_lab.objectives import AlgoSpec, TokenBatch, method, method_names, token_objective
from cppo_lab.objectives.describe import difference, summary
from cppo_lab.objectives.spec import neutral_tree
from cppo_lab.plugins import load_plugins

before = method("cppo")
load_plugins([sys.argv[1]])
algo = method("first_exit")
after = method("cppo")
batch = TokenBatch(
    logp=torch.tensor([[0.6, 0.2, 0.6, 0.9]]).log().requires_grad_(),
    rollout_logp=torch.tensor([[0.5, 0.5, 0.5, 0.5]]).log(),
    advantages=torch.tensor([1.0]),
    response_mask=torch.ones(1, 4) > 0,
)
binary = algo.replace(divergence=algo.divergence.replace(kind="binary_tv"))
tight = binary.replace(trust_region=binary.trust_region.replace(exit_at=0.35))
soft = tight.replace(trust_region=tight.trust_region.replace(gate="inverse"))
objective = token_objective(batch, tight)
objective.loss.sum().backward()
def refusal(**changes):
    try:
        algo.replace(trust_region=algo.trust_region.replace(**changes))
    except ValueError as error:
        return str(error)
print(json.dumps({
    "listed": "first_exit" in method_names(),
    "text": summary(algo)["trust_region"],
    "differs": sorted(difference(after, algo)),
    "loose": token_objective(batch, binary).gate.tolist(),
    "tight": objective.gate.tolist(),
    "soft": token_objective(batch, soft).gate.tolist(),
    "gradient": batch.logp.grad.tolist(),
    "same cppo": before == after and hash(before) == hash(after),
    "known to Hydra": "exit_at" in neutral_tree()["trust_region"],
    "unread by cppo": not after.trust_region.reads("exit_at"),
    "refused": [refusal(exit_at=-1), refusal(exit_at="much")],
}))
"""


def test_a_plugin_s_rule_is_in_every_place_that_knows_the_built_in_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITH_THE_PLUGIN, str(PLUGIN)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # D is 0.1, 0.3, 0.1, 0.4; the second token moves toward the anchor, and is charged all the same.
    assert found["loose"] == [[1, 1, 1, 0]]
    assert found["tight"] == [[1, 1, 0, 0]]
    assert found["soft"][0] == pytest.approx([1, 1, 0.35 / 0.4, 0.15 / 0.4])
    assert found["gradient"][0] == pytest.approx([-1.2, -0.4, 0, 0])
    assert found["text"] == "first_exit (delta 0.15, exit_at 1)"
    assert found["differs"] == ["trust_region.budget.kind", "trust_region.kind", "trust_region.weights.kind"]
    assert found["refused"] == [
        "trust_region.exit_at = -1: must be greater than 0",
        "trust_region.exit_at = 'much': must be a number",
    ]
    assert all(found[key] for key in ("listed", "same cppo", "known to Hydra", "unread by cppo"))

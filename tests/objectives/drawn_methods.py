"""Methods around any registered rule, with parameters drawn from their declared types and ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from hypothesis import assume
from hypothesis import strategies as st

from cppo_lab.objectives.describe import rules_of
from cppo_lab.objectives.parameters import Parameter, alternatives
from cppo_lab.objectives.rules import Rule, Rules
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.objectives.surrogates import surrogates
from cppo_lab.objectives.trust_regions import trust_regions

Draw = Callable[[st.SearchStrategy[Any]], Any]
EVERY_RULE = [(key, name) for key, rules in rules_of() for name in rules]
"""Selecting key under `algo`, and name of the rule: all that are registered."""


def values(parameter: Parameter) -> st.SearchStrategy[Any]:
    """Values that the declaration of a parameter admits, of moderate size."""
    return st.one_of(*[_of_type(option, parameter) for option in alternatives(parameter.type)])


def _of_type(annotation: Any, parameter: Parameter) -> st.SearchStrategy[Any]:
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is tuple:
        steps = st.dictionaries(st.integers(0, 20), st.floats(0.1, 3.0), min_size=1, max_size=4)
        return steps.map(lambda chosen: tuple(sorted(chosen.items())))
    if annotation is bool:
        return st.booleans()
    if annotation is type(None):
        return st.none()
    limits = parameter.param
    numbers = [bound for bound in (limits.above, limits.at_least) if isinstance(bound, int | float)]
    low = numbers[0] if numbers else 0.0
    high = low + 2 if limits.at_most is None else limits.at_most
    if annotation is int:
        return st.integers(int(low), int(high) + 20)
    return st.floats(low + 0.01 * (high - low), high)


def drawn(draw: Draw, rule: Rule, ordered: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A value for every parameter of a rule."""
    found = {each.name: draw(values(each)) for each in rule.parameters}
    for each in rule.parameters:
        if isinstance(each.param.above, str) and each.param.above in found:
            assume(found[each.name] > found[each.param.above])
        if isinstance(each.param.at_least, str) and each.param.at_least in found:
            assume(found[each.name] >= found[each.param.at_least])
    return found


def _rule(rules: Rules, name: str, draw: Draw) -> dict[str, Any]:
    return {"kind": name, **drawn(draw, rules[name])}


@st.composite
def method_with(draw: Draw, key: str, name: str) -> AlgoSpec:
    """A method that selects the rule `name` at `key`, and beside it whatever the rule needs."""
    rules = dict(rules_of())[key]
    *path, selector = key.split(".")
    tree: dict[str, Any] = {"anchor": "rollout", "paper_anchor": "rollout", "name": "drawn", "paper": ""}
    group = tree
    for part in path:
        group = group.setdefault(part, {})
    group |= {selector: name, **drawn(draw, rules[name])}
    _give_needs(draw, tree, key, rules[name])
    try:
        return AlgoSpec.build(tree)
    except ValueError:
        # The ranges are right one by one; what goes together is the rule's to say.
        assume(False)
        raise


def _give_needs(draw: Draw, tree: dict[str, Any], key: str, rule: Rule) -> None:
    region = tree.setdefault("trust_region", {})
    hosts = {name: name for name in ("weights", "budget", "gate", "scale", "direction")} | {
        "schedule": "gate"
    }
    part = key.removeprefix("trust_region.").split(".")[0]
    if key.startswith("trust_region.") and part in hosts:
        region |= _rule(trust_regions, trust_regions.that_need(hosts[part])[0], draw)  # type: ignore[arg-type]
        if "schedule" in key and part == "budget":
            region["budget"]["kind"] = "fixed"
    if key.startswith("divergence"):
        region |= _rule(trust_regions, trust_regions.that_need("divergence")[0], draw)
    if "clip_window" in rule.needs:
        provider = next(each for each in trust_regions.values() if "clip_window" in each.provides)
        region |= _rule(trust_regions, provider.name, draw)
    if key == "surrogate.ratio":
        tree["surrogate"]["kind"] = surrogates.that_need("ratio")[0]
    if key == "regulariser.kl_kind":
        tree["regulariser"]["kl_coefficient"] = 0.1
    if "old_logp" in rule.needs:
        tree |= {"anchor": "old", "paper_anchor": "old"}
    needs = trust_regions[region.get("kind", "none")].needs
    if "divergence" in needs and tree.setdefault("divergence", {}).get("kind", "none") == "none":
        tree["divergence"]["kind"] = "topk_kl" if region.get("direction") == "predicted" else "binary_tv"

"""Rules: functions that register themselves under the name by which a configuration selects them.

    @weights.register("power")
    def power(at: WeightInputs, *, w_min: Floor, exponent: Annotated[float, Param(above=0)] = 2.0) -> Tensor:
        \"\"\"1 - (1 - w_min) u^exponent.\"\"\"

The keyword-only parameters of the function are the parameters of the rule; their annotations give types and ranges.
The first line of its docstring is the rule's description in listings.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from cppo_lab.errors import near_miss
from cppo_lab.objectives.parameters import Parameter, fail, parameter
from cppo_lab.registry import Entry, Registry

Need = Literal[
    "old_logp", "topk", "full", "values", "weight_order",  # tensors that the trainer must provide
    "group",  # several responses per prompt
    "divergence", "mean_divergence", "direction", "gate",  # other coordinates
    "weights", "budget", "ratio", "violation",
    "clip_window",  # bounds of the ratio, which some trust regions provide
    "rollout_entropy", "version_lag", "prompt", "selection_order",  # tensors that the trainer must provide
    "scale",  # another coordinate
    "sharp_gate",  # a gate that reads whether a token is within the region, not by how much
]  # fmt: skip
Provision = Literal["clip_window"]
RESERVED = frozenset(
    {
        "as_dict",
        "build",
        "check",
        "parameters",
        "neutral_fields",
        "is_off",
        "path",
        "reads",
        "replace",
        "rule",
        "selected",
        "selectors",
    }
)
"""The attributes of a `Coordinate`, which no parameter may be called."""
Check = Callable[[Any], None]
Statistic = Callable[..., Mapping[str, Any]]
When = Callable[[Any], bool]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Rule:
    """A registered function, its parameters, and what it reads and provides besides them."""

    name: str
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    needs: frozenset[Need]
    provides: frozenset[Provision]
    check: Check | None
    """Takes the `AlgoSpec`; raises ValueError where the rule makes no sense in it."""
    feedback: bool
    """A schedule that is updated after each step from the share of masked tokens."""
    largest: float = math.inf
    """The largest value that a divergence can have: no threshold beyond it acts."""
    statistic: Statistic | None = None
    """What it reads of the whole minibatch: takes `PooledTokens` and some of the rule's parameters, by keyword."""
    statistic_when: When | None = None
    """Takes the rule's group; False where its values make the statistic needless. None: it is always needed."""
    admitted: When | None = None
    """Takes the rule's group; whether CPPO's Theorem 1 admits these weights. None: found by evaluating them."""

    def reads(self, name: str) -> bool:
        """Whether `name` is one of its parameters."""
        return any(each.name == name for each in self.parameters)


class Rules(Registry[Rule]):
    """The rules of one kind. `kind` is the key that selects among them, such as `divergence.kind`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.additions = 0
        """How often a rule was added."""

    def register(  # type: ignore[override]
        self,
        name: str,
        *,
        about: str | None = None,
        paper: str | None = None,
        needs: Iterable[Need] = (),
        provides: Iterable[Provision] = (),
        check: Check | None = None,
        feedback: bool = False,
        largest: float = math.inf,
        statistic: Statistic | None = None,
        statistic_when: When | None = None,
        admitted: When | None = None,
    ) -> Callable[[Function], Function]:
        """A decorator that registers a function as the rule `name`.

        `about` is by default the first line of the function's docstring. `needs`: what it reads besides its inputs;
        `check`: raises ValueError for a method in which it makes no sense; `feedback`, `largest`, `statistic`,
        `statistic_when` and `admitted`: see `Rule`.

        Raises ValueError for a name that is taken, an unknown need, a parameter without a type, and a parameter that
        another rule of this kind declares differently, since their keys lie side by side in a configuration.
        """
        for need in needs:
            if need not in get_args(Need):
                raise ValueError(
                    f"{self.kind} {name}: needs {need!r}; allowed are {', '.join(get_args(Need))}"
                )

        def add(function: Function) -> Function:
            parameters = _parameters_of(function)
            for each in parameters:
                self._check_shared(name, each)
            rule = Rule(
                name,
                function,
                parameters,
                frozenset(needs),
                frozenset(provides),
                check,
                feedback,
                largest,
                statistic,
                statistic_when,
                admitted,
            )
            text = about or (function.__doc__ or "").strip().split("\n")[0]
            if not text:
                raise ValueError(f"{self.kind} {name}: needs a docstring that says what it does")
            self.add(Entry(name, rule, text.rstrip("."), paper, function.__module__))
            self.additions += 1
            return function

        return add

    def parameters(self) -> dict[str, Parameter]:
        """Every parameter of every rule, by name."""
        return {each.name: each for rule in self.values() for each in rule.parameters}

    def that_read(self, name: str) -> list[str]:
        """The rules that have the parameter `name`."""
        return [rule.name for rule in self.values() if rule.reads(name)]

    def that_need(self, need: Need) -> list[str]:
        """The rules that need `need`."""
        return [rule.name for rule in self.values() if need in rule.needs]

    def _check_shared(self, name: str, declared: Parameter) -> None:
        for rule in self.values():
            for other in rule.parameters:
                if rule.name != name and other.name == declared.name and other != declared:
                    raise ValueError(
                        f"{self.kind} {name}: its parameter {declared.name} has another type, range or default than "
                        f"that of {rule.name}; choose another name"
                    )


def _parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    hints = get_type_hints(function, include_extras=True)
    found = []
    for each in inspect.signature(function).parameters.values():
        if each.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if each.name not in hints:
            raise ValueError(f"{function.__qualname__}: its parameter {each.name} needs a type")
        if each.name in RESERVED:
            raise ValueError(f"{function.__qualname__}: a parameter cannot be called {each.name}")
        given = () if each.default is inspect.Parameter.empty else (each.default,)
        found.append(parameter(each.name, hints[each.name], *given))
    return tuple(found)


def check_known(key: str, name: object, rules: Rules) -> None:
    """Raise ValueError unless `name` is registered."""
    if not isinstance(name, str) or name not in rules:
        near = near_miss(str(name), rules).replace(" Did", " (did", 1)
        raise fail(key, name, f"must be one of {', '.join(rules)}{near + ')' if near else ''}")

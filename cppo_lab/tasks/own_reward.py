"""A reward function of one's own, from a Python file, with the signature of TRL's reward functions."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError, first_line, near_miss
from cppo_lab.tasks.grading.verdict import Outcome, Verdict
from cppo_lab.tasks.problem import Problem

_GIVEN = ("prompts", "completions")


@dataclass(frozen=True)
class OwnReward:
    """The function `name` of the Python file `path`, which gives every response a number.

    It is called as TRL calls reward functions: `prompts` and `completions` are lists of texts, or of lists of chat
    messages for chat prompts, and each column of the data is a list besides. None stands for a response without a
    reward (0 here). A response counts as correct from the reward `correct_from` on.
    """

    path: str
    name: str = "reward"
    correct_from: float = 1.0

    def check(self, columns: Sequence[str] | None = None) -> None:
        """Raise UserError for a file without the function, or a parameter that is none of `columns` of the data."""
        parameters = inspect.signature(self._function).parameters.values()
        wanted = [
            each.name
            for each in parameters
            if each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        ]
        given = [*_GIVEN, *(columns or ())]
        absent = [] if columns is None else [name for name in wanted if name not in given]
        if absent:
            raise UserError(
                f"task.reward={self.path}: {self.name} wants {absent[0]}, which the data do not have; given are "
                f"{', '.join(given)}."
            )

    def grade(self, responses: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """The verdict on each response to the problem at its index.

        Raises UserError where the function raises, or returns anything but a finite number or None per response.
        """
        columns = {name: [(each.row or {}).get(name) for each in problems] for name in columns_of(problems)}
        self.check(list(columns))
        chat = [
            [{"role": "assistant", "content": response}] if problem.is_chat else response
            for response, problem in zip(responses, problems, strict=True)
        ]
        given = {"prompts": [_prompt(each) for each in problems], "completions": chat} | columns
        try:
            rewards = self._function(**self._accepted(given))
        except Exception as error:
            raise UserError(
                f"task.reward={self.path}: {self.name} raised {type(error).__name__}: {first_line(error)}"
            ) from error
        return self._verdicts(rewards, len(responses))

    def _accepted(self, given: dict[str, Any]) -> dict[str, Any]:
        parameters = inspect.signature(self._function).parameters
        if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            return given
        return {name: value for name, value in given.items() if name in parameters}

    def _verdicts(self, rewards: Any, count: int) -> list[Verdict]:
        if not isinstance(rewards, Sequence) or len(rewards) != count:
            found = f"{len(rewards)} of them" if isinstance(rewards, Sequence) else type(rewards).__name__
            raise UserError(
                f"task.reward={self.path}: {self.name} must return a list with a number for each of {count} "
                f"responses; it returned {found}."
            )
        wrong = next((each for each in rewards if each is not None and not _is_number(each)), None)
        if wrong is not None:
            raise UserError(
                f"task.reward={self.path}: {self.name} must return finite numbers, or None; it returned {wrong!r:.40}."
            )
        return [self._verdict(each) for each in rewards]

    def _verdict(self, reward: float | None) -> Verdict:
        if reward is None:
            return Verdict(Outcome.UNPARSABLE, None, 0.0)
        is_correct = reward >= self.correct_from
        return Verdict(Outcome.CORRECT if is_correct else Outcome.WRONG, f"{reward:g}", float(reward))

    @property
    def _function(self) -> Callable[..., Any]:
        return _loaded(self.path, self.name)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def columns_of(problems: Sequence[Problem]) -> list[str]:
    """The columns of the data that the problems were made from."""
    names = dict.fromkeys(name for each in problems for name in each.row or {})
    return [name for name in names if name not in _GIVEN]


def _prompt(problem: Problem) -> Any:
    if not problem.is_chat:
        return problem.prompt
    system = [] if problem.system is None else [{"role": "system", "content": problem.system}]
    return [*system, {"role": "user", "content": problem.prompt}]


@functools.cache
def _loaded(path: str, name: str) -> Callable[..., Any]:
    file = Path(path)
    if not file.is_file():
        raise UserError(f"task.reward={path}: no such Python file.")
    spec = importlib.util.spec_from_file_location(f"cppo_lab_reward_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"task.reward={path}: must be a Python file (.py).")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"task.reward={path}: cannot be loaded ({type(error).__name__}: {first_line(error)})."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(f"task.reward_function={name}: {path} has no such function.{near_miss(name, known)}")
    return function

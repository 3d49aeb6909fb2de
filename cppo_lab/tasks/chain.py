"""The embedded task: grade-school word problems that the lab generates.

A problem is a start value and `steps` changes of it (gains, losses, doublings, triplings); all values stay in
[0, 99]. The solution writes every step in GSM8K's calculator notation and ends in `#### answer`:

    leo has 29 cards, triples them, finds 5. how many?
    <<29*3=87>><<87+5=92>>#### 92

`steps` sets the difficulty. Training problems are drawn without end, and never from the held-out set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from cppo_lab.errors import UserError
from cppo_lab.fields import Count, Share
from cppo_lab.rng import Stream, numpy_stream
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.task import Task, TaskConfig, tasks

NAMES = ("leo", "mia", "tom", "ana", "sam", "zoe", "max", "eva")
ITEMS = (" cards", " coins", " pears", " books")
GAINS = (", finds ", ", buys ", ", wins ", ", gets ")
LOSSES = (", loses ", ", sells ", ", eats ", ", gives ")
MULTIPLES = {", doubles them": 2, ", triples them": 3}
MARKS = (" has ", ". how many?\n", "<<", "+", "-", "*", "=", ">>", "#### ")
DIGITS = tuple("0123456789")
VOCABULARY = (*DIGITS, *MARKS, *NAMES, *ITEMS, *GAINS, *LOSSES, *MULTIPLES)

LARGEST_VALUE = 99
_HELDOUT_SEED = 4242
# When this many draws per problem give too few different ones, the task has no more.
_DRAWS_PER_PROBLEM = 8
_TRAINING_DRAWS = 1000


@dataclass(frozen=True)
class Change:
    """One step of a problem: what the prompt says, and its operation in the solution."""

    words: str
    operation: str
    operand: int

    def apply(self, value: int) -> int:
        """The value after this change."""
        if self.operation == "*":
            return value * self.operand
        return value + self.operand if self.operation == "+" else value - self.operand


def _draw_change(rng: np.random.Generator, value: int, multiply_probability: float) -> Change:
    if rng.random() < multiply_probability:
        words, factor = list(MULTIPLES.items())[rng.integers(len(MULTIPLES))]
        if value * factor <= LARGEST_VALUE:
            return Change(words, "*", factor)
    operand = int(rng.integers(1, 10))
    gains = bool(rng.integers(2))
    if value + operand > LARGEST_VALUE:
        gains = False
    elif value - operand < 0:
        gains = True
    verb = (GAINS if gains else LOSSES)[rng.integers(4)]
    return Change(f"{verb}{operand}", "+" if gains else "-", operand)


def _write_solution(
    start: int, changes: Sequence[Change], rng: np.random.Generator, corruption: float
) -> tuple[str, int]:
    """The written solution and its last value; each step's result is wrong with probability `corruption`."""
    value, steps = start, []
    for change in changes:
        result = change.apply(value)
        if corruption > 0 and rng.random() < corruption:
            result = int((result + rng.integers(1, LARGEST_VALUE + 1)) % (LARGEST_VALUE + 1))
        steps.append(f"<<{value}{change.operation}{change.operand}={result}>>")
        # A corrupted value may lead the later, correct steps out of the digits' range.
        value = min(max(result, 0), LARGEST_VALUE) if corruption > 0 else result
    return "".join(steps) + f"#### {value}", value


def draw_problem(
    rng: np.random.Generator, steps: int, multiply_probability: float = 0.15, corruption: float = 0.0
) -> Problem:
    """One problem of `steps` steps. With `corruption`, the solution (never the answer) goes wrong at random."""
    name, item = NAMES[rng.integers(len(NAMES))], ITEMS[rng.integers(len(ITEMS))]
    start = value = int(rng.integers(2, 31))
    changes: list[Change] = []
    for _ in range(steps):
        changes.append(_draw_change(rng, value, multiply_probability))
        value = changes[-1].apply(value)
    prompt = f"{name} has {start}{item}{''.join(change.words for change in changes)}. how many?\n"
    solution, _ = _write_solution(start, changes, rng, corruption)
    return Problem(prompt=prompt, answer=str(value), solution=solution)


@dataclass(frozen=True)
class ChainTask(Task):
    """Problems of exactly `steps` steps, with a held-out set of `heldout` problems."""

    steps: int
    heldout: int
    multiply_probability: float = 0.15

    @cached_property
    def _heldout(self) -> tuple[Problem, ...]:
        rng = numpy_stream(_HELDOUT_SEED, Stream.HELDOUT, self.steps)
        problems: dict[str, Problem] = {}
        for _ in range(_DRAWS_PER_PROBLEM * self.heldout):
            if len(problems) == self.heldout:
                return tuple(problems.values())
            problem = draw_problem(rng, self.steps, self.multiply_probability)
            problems.setdefault(problem.prompt, problem)
        raise UserError(
            f"task.heldout={self.heldout}: too many for task.steps={self.steps}, "
            f"which has few more than {len(problems)} distinct problems."
        )

    @cached_property
    def _heldout_prompts(self) -> frozenset[str]:
        return frozenset(problem.prompt for problem in self._heldout)

    def draw(self, rng: np.random.Generator, steps: int, corruption: float = 0.0) -> Problem:
        """A training problem: one that the held-out set does not contain."""
        for _ in range(_TRAINING_DRAWS):
            problem = draw_problem(rng, steps, self.multiply_probability, corruption)
            if problem.prompt not in self._heldout_prompts:
                return problem
        raise UserError(
            f"task.heldout={self.heldout}: leaves almost no training problems for task.steps={self.steps}."
        )

    def training_problems(self, step: int, count: int, seed: int) -> list[Problem]:
        """See `Task.training_problems`."""
        rng = numpy_stream(seed, Stream.PROMPTS, step)
        return [self.draw(rng, self.steps) for _ in range(count)]

    def heldout_problems(self) -> Sequence[Problem]:
        """See `Task.heldout_problems`."""
        return self._heldout

    def warmup_problems(
        self, rng: np.random.Generator, count: int, longest: int, corruption: float
    ) -> list[Problem]:
        """`count` problems of one common length in 1..`longest`, their solutions corrupted with that probability."""
        steps = int(rng.integers(1, longest + 1))
        return [self.draw(rng, steps, corruption) for _ in range(count)]


@tasks.register("chain", about="Grade-school word problems, generated by the lab.")
class ChainConfig(TaskConfig):
    """The embedded word problems; `steps` is the difficulty."""

    prompt_tokens: ClassVar[int] = 20
    vocabulary: ClassVar[tuple[str, ...]] = VOCABULARY

    steps: Annotated[int, Field(ge=1, le=64)]
    heldout: Annotated[int, Field(ge=16, le=100_000)]
    multiply_probability: Share
    max_response_tokens: Count | None

    def build(self) -> ChainTask:
        """See `TaskConfig.build`."""
        return ChainTask(self.steps, self.heldout, self.multiply_probability)

    @property
    def response_limit(self) -> int:
        """A quarter more tokens than the longest correct solution (9 per step, and 4), unless set.

        Shaping of long responses begins at four fifths of the limit, and must not reach correct ones.
        """
        return self.max_response_tokens or 12 * self.steps + 6

    @property
    def heldout_count(self) -> int:
        """See `TaskConfig.heldout_count`."""
        return self.heldout

    @property
    def has_solutions(self) -> bool:
        """Problems are generated with their solutions."""
        return True

    def check_scratch_model(self, context: int) -> None:
        """See `TaskConfig.check_scratch_model`."""
        needed = 6 * self.steps + 16 + self.response_limit
        if context < needed:
            raise ValueError(
                f"model.context = {context}: must be at least {needed} for task.steps = {self.steps}"
            )

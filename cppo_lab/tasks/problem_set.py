"""Tasks over a fixed set of training problems, which training goes through in a new order every epoch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cppo_lab.errors import UserError
from cppo_lab.fields import Count
from cppo_lab.rng import Stream, numpy_stream
from cppo_lab.tasks.grading.verdict import Verdict
from cppo_lab.tasks.problem import Grade, Problem, grade_responses
from cppo_lab.tasks.task import Task, TaskConfig


@dataclass(frozen=True)
class ProblemSet:
    """Problems to train on, and problems to hold out. `counts` says what was kept and dropped of the data."""

    training: Sequence[Problem]
    heldout: Sequence[Problem]
    counts: Mapping[str, int] = field(default_factory=dict)


class ProblemSetTask(Task):
    """A task over the problems that `read` returns; they are read when first needed."""

    def __init__(self, read: Callable[[], ProblemSet], grade: Grade = grade_responses) -> None:
        self._read, self._grade = read, grade
        self._orders: dict[tuple[int, int], Sequence[int]] = {}

    @cached_property
    def problems(self) -> ProblemSet:
        """All problems."""
        return self._read()

    def training_problems(self, step: int, count: int, seed: int) -> list[Problem]:
        """See `Task.training_problems`. Every step of a run takes as many; each epoch visits all in a new order."""
        training = self.problems.training
        found = []
        for place in range(step * count, (step + 1) * count):
            epoch, index = divmod(place, len(training))
            found.append(training[self._order(seed, epoch)[index]])
        return found

    def _order(self, seed: int, epoch: int) -> Sequence[int]:
        if (seed, epoch) not in self._orders:
            rng = numpy_stream(seed, Stream.PROMPTS, epoch)
            self._orders[seed, epoch] = rng.permutation(len(self.problems.training)).tolist()
        return self._orders[seed, epoch]

    def heldout_problems(self) -> Sequence[Problem]:
        """See `Task.heldout_problems`."""
        return self.problems.heldout

    def grade(self, responses: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """See `Task.grade`."""
        return self._grade(responses, problems)

    def warmup_problems(
        self, rng: np.random.Generator, count: int, longest: int, corruption: float
    ) -> list[Problem]:
        """See `Task.warmup_problems`; solutions are taken as they are."""
        training = [problem for problem in self.problems.training if problem.solution]
        if not training:
            return super().warmup_problems(rng, count, longest, corruption)
        return [training[i] for i in rng.integers(len(training), size=count)]

    def supervised_texts(self) -> Sequence[str]:
        """Prompts with their solutions, of the training problems alone."""
        return [problem.prompt + problem.solution for problem in self.problems.training if problem.solution]

    @property
    def data_counts(self) -> Mapping[str, int]:
        """See `Task.data_counts`."""
        return self.problems.counts


class ProblemSetConfig(TaskConfig):
    """Configuration of a task over a fixed set of problems: derive from it, and say what the problems are."""

    heldout: Count
    max_response_tokens: Count

    @abstractmethod
    def problems(self) -> ProblemSet:
        """Read or make all problems. Raises UserError where they cannot be used."""

    def grade(self, responses: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """The verdict on each response to the problem at its index. By default, the lab's grader decides."""
        return grade_responses(responses, problems)

    def build(self) -> Task:
        """See `TaskConfig.build`."""
        return ProblemSetTask(self.problems, self.grade)

    @property
    def response_limit(self) -> int:
        """See `TaskConfig.response_limit`."""
        return self.max_response_tokens

    @property
    def heldout_count(self) -> int:
        """See `TaskConfig.heldout_count`."""
        return self.heldout


def without_heldout(training: Sequence[Problem], heldout: Sequence[Problem], source: str) -> ProblemSet:
    """The training problems whose prompt is not held out, with the held-out ones.

    Raises UserError if none is left; `source` is the key and value that name the training data.
    """
    prompts = {problem.prompt for problem in heldout}
    kept = tuple(problem for problem in training if problem.prompt not in prompts)
    if not kept:
        raise UserError(
            f"{source}: leaves no problem to train on without the held-out ones; "
            "give a task.heldout_path of other problems."
        )
    return ProblemSet(kept, tuple(heldout))

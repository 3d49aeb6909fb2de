"""What a task is: its configuration, and the problems that it gives the trainer and the evaluation.

A task is one file: a configuration class registered under its `kind`, and what `build` makes of it. A task over a
fixed set of problems derives from `ProblemSetConfig` instead, and has only to read them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, Self

import numpy as np

from cppo_lab.errors import UserError
from cppo_lab.fields import Group
from cppo_lab.registry import Registry
from cppo_lab.tasks.asking import AskedModel, Asking
from cppo_lab.tasks.grading.verdict import Verdict
from cppo_lab.tasks.problem import Problem, grade_responses


class Task(ABC):
    """A source of problems: an endless stream to train on, and a fixed held-out set."""

    @abstractmethod
    def training_problems(self, step: int, count: int, seed: int) -> list[Problem]:
        """The `count` problems of training step `step` (from 0): a function of its arguments alone."""

    @abstractmethod
    def heldout_problems(self) -> Sequence[Problem]:
        """The fixed held-out set; shares no prompt with any training problem."""

    def grade(self, responses: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """The verdict on each response to the problem at its index. By default, the lab's grader decides."""
        return grade_responses(responses, problems)

    def warmup_problems(
        self, rng: np.random.Generator, count: int, longest: int, corruption: float
    ) -> list[Problem]:
        """A batch of training problems with solutions to learn from, none of them held out.

        `longest` bounds their length and `corruption` is the share of wrong steps, where the task generates its own.
        Raises UserError where the task has no solutions.
        """
        raise UserError("task: has no written solutions to warm a model up with; set warmup=none.")

    def supervised_texts(self) -> Sequence[str]:
        """Texts that a from-scratch tokenizer is trained on; empty where the task has a vocabulary, or no solutions."""
        return ()

    @property
    def data_counts(self) -> Mapping[str, int]:
        """What was kept and dropped of the training data, for run.json; empty where nothing is dropped."""
        return {}


@dataclass(frozen=True)
class HeldoutSampling:
    """How held-out problems are answered during training: `samples` responses each.

    `temperature` None is that of the training rollouts.
    """

    samples: int = 1
    temperature: float | None = None
    top_p: float = 1.0


class TaskConfig(Group):
    """Configuration of a task. Everything the lab has to know of a task before it reads its data is here."""

    prompt_tokens: ClassVar[int] = 200
    """Typical length of a prompt, for cost estimates."""
    vocabulary: ClassVar[tuple[str, ...]] = ()
    """The tokens of a from-scratch model; if empty, its tokenizer is trained on `Task.supervised_texts`."""
    path_keys: ClassVar[tuple[str, ...]] = ()
    """The keys that hold paths of local files, such as `path`. A run's identity has the bytes instead of the paths."""

    kind: str

    @abstractmethod
    def build(self) -> Task:
        """The task. Data are read when first needed."""

    def asked_of(self, model: AskedModel) -> Self:
        """The task with its prompts as that model is asked. Raises UserError where it cannot be asked so."""
        return self

    @property
    def asking(self) -> Asking | None:
        """How questions become prompts, for `cppo-lab eval`; None where problems are prompts already."""
        return None

    @property
    @abstractmethod
    def response_limit(self) -> int:
        """The response length limit in tokens."""

    @property
    @abstractmethod
    def heldout_count(self) -> int:
        """Number of held-out problems, as far as known before data are read."""

    @property
    def heldout_sampling(self) -> HeldoutSampling:
        """How held-out problems are answered: by default once each, sampled as in training."""
        return HeldoutSampling()

    @property
    def has_solutions(self) -> bool:
        """Whether problems come with written solutions, which a from-scratch model is warmed up with."""
        return False

    def local_files(self) -> dict[str, str]:
        """Paths of the local files that the task reads, by the key that sets each (see `path_keys`)."""
        values = {key: reduce(getattr, key.split("."), self) for key in self.path_keys}
        return {key: str(value) for key, value in values.items() if value}

    def check_files(self) -> None:
        """Read the local files, and nothing of the hub. Raises UserError where one cannot be used."""
        if self.local_files():
            self.build().heldout_problems()

    def check_scratch_model(self, context: int) -> None:
        """Raise ValueError where a from-scratch model of `context` tokens cannot be trained on this task."""
        if not self.has_solutions:
            raise ValueError(
                "model.kind = scratch: must be pretrained (model=pretrained model.path=…) for "
                f"task.kind = {self.kind}, which has no written solutions to warm a model up with"
            )


tasks: Registry[type[TaskConfig]] = Registry("task")

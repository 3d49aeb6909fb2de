"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): from the hub at a pinned revision, or from a local file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cppo_lab.errors import UserError
from cppo_lab.tasks.grading.numbers import parse_number
from cppo_lab.tasks.order import ShuffledStream
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.rows import hub_rows, local_rows

HUB_ID = "openai/gsm8k"
HUB_REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"


def prompt_text(question: str) -> str:
    """The plain-text prompt of a question, as lm-evaluation-harness writes it."""
    return f"Question: {question}\nAnswer:"


def _problem(row: Any, where: str) -> Problem:
    if not isinstance(row, dict) or not {"question", "answer"} <= row.keys():
        raise UserError(f"{where}: a GSM8K row needs the keys 'question' and 'answer'.")
    question, solution = row["question"], row["answer"]
    if not isinstance(question, str) or not isinstance(solution, str):
        raise UserError(f"{where}: 'question' and 'answer' must be text.")
    answer = solution.rpartition("####")[2].strip()
    if "####" not in solution or parse_number(answer) is None:
        raise UserError(f"{where}: 'answer' must end in '#### NUMBER'.")
    return Problem(prompt=prompt_text(question), answer=answer, solution=" " + solution)


def load_problems(path: str | None, split: str, revision: str = HUB_REVISION) -> list[Problem]:
    """All problems of a local file, or of a hub split.

    Raises UserError when the file is missing, unreadable, empty, or a row has no numeric answer.
    """
    rows = local_rows(Path(path)) if path else hub_rows(HUB_ID, "main", split, revision)
    if not rows:
        raise UserError(f"{path or HUB_ID}: holds no problem.")
    return [_problem(row, f"{path or HUB_ID}, row {number}") for number, row in enumerate(rows, start=1)]


@dataclass(frozen=True)
class Gsm8kTask:
    """GSM8K for training: `path` a local training file or None for the hub.

    The held-out set is `heldout_path`, else the hub's test split, else (for a local training file alone) the last
    `heldout` training problems, which training then never sees.
    """

    path: str | None
    heldout_path: str | None
    heldout: int
    revision: str = HUB_REVISION
    name: str = field(default="gsm8k", init=False)

    @cached_property
    def _split(self) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
        training = load_problems(self.path, "train", self.revision)
        if self.heldout_path or not self.path:
            heldout = load_problems(self.heldout_path, "test", self.revision)[: self.heldout]
        else:
            if len(training) <= self.heldout:
                raise UserError(
                    f"task.heldout={self.heldout}: {self.path} holds only {len(training)} problems; "
                    "give fewer, or a task.heldout_path."
                )
            training, heldout = training[: -self.heldout], training[-self.heldout :]
        kept_back = {problem.prompt for problem in heldout}
        kept = tuple(problem for problem in training if problem.prompt not in kept_back)
        if not kept:
            raise UserError(
                f"task.path={self.path}: leaves no problem to train on without the held-out ones; "
                "give a task.heldout_path of other problems."
            )
        return kept, tuple(heldout)

    @cached_property
    def _stream(self) -> ShuffledStream[Problem]:
        return ShuffledStream(self._split[0])

    def training_problems(self, step: int, count: int, seed: int) -> list[Problem]:
        """See `Task.training_problems`; the stream runs through all problems, each time in another order."""
        return self._stream.batch(step, count, seed)

    def heldout_problems(self) -> Sequence[Problem]:
        """See `Task.heldout_problems`."""
        return self._split[1]

    def warmup_problems(
        self, rng: np.random.Generator, count: int, longest: int, corruption: float
    ) -> list[Problem]:
        """See `Task.warmup_problems`; the data set's solutions are taken as they are."""
        training = self._split[0]
        return [training[i] for i in rng.integers(len(training), size=count)]

    def supervised_texts(self) -> Sequence[str]:
        """Prompts with their solutions, from the training problems alone."""
        return [problem.prompt + problem.solution for problem in self._split[0]]

"""What every task offers the trainer and the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A prompt with its verifiable answer, a number.

    `solution` is a reference completion where the task has one; supervised warm-up learns from it. `is_chat` says that
    the prompt is a user's message, to be written by the model's chat template, and `has_answer_line` that it asks for
    the answer behind `Answer:`. `benchmark` is what a held-out problem is from, where a task has several.
    """

    prompt: str
    answer: str
    solution: str = ""
    is_chat: bool = False
    has_answer_line: bool = False
    benchmark: str | None = None


class Task(Protocol):
    """A source of problems: an unlimited or shuffled training stream, and a fixed held-out set."""

    @property
    def name(self) -> str:
        """The name of the task."""
        ...

    def training_problems(self, step: int, count: int, seed: int) -> list[Problem]:
        """The `count` problems of training step `step` (from 0): a function of its arguments alone."""
        ...

    def heldout_problems(self) -> Sequence[Problem]:
        """The fixed held-out set; shares no prompt with any training problem."""
        ...

    def warmup_problems(
        self, rng: np.random.Generator, count: int, longest: int, corruption: float
    ) -> list[Problem]:
        """A batch of training problems with solutions to learn from, none of them held out.

        `longest` bounds their length and `corruption` is the share of wrong steps, where the task makes its own.
        """
        ...

    def supervised_texts(self) -> Sequence[str]:
        """Texts that a from-scratch tokenizer is trained on; empty when the task brings its own."""
        ...

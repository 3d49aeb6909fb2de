"""Evaluation protocols: from questions to prompts, and from responses to scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cppo_lab.tasks.benchmarks import Question
from cppo_lab.tasks.grading.verdict import Outcome


@dataclass(frozen=True)
class Prompt:
    """The text that a model continues. With `is_chat`, a chat template formatted it, special tokens included."""

    text: str
    is_chat: bool = False


@dataclass(frozen=True)
class Score:
    """One response as scored by one metric. `extracted` is the answer found, or None."""

    outcome: Outcome
    extracted: str | None

    @property
    def correct(self) -> bool:
        """Whether the response counts as correct."""
        return self.outcome is Outcome.CORRECT


class EvaluationProtocol(Protocol):
    """How to prompt and how to score. The first of `metrics` is the main one."""

    @property
    def name(self) -> str:
        """Its name and version, such as `lm-eval:gsm8k@3.0`."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the scores that each response gets."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """The default length limit of a response."""
        ...

    @property
    def is_fixed(self) -> bool:
        """Whether the protocol prescribes decoding: greedy, one sample."""
        ...

    def prompts(self, questions: Sequence[Question], pool: Sequence[Question]) -> list[Prompt]:
        """One prompt per question; few-shot examples are drawn from `pool`."""
        ...

    def stops(self, prompt: Prompt) -> tuple[str, ...]:
        """The strings that end a response and are not part of it."""
        ...

    def score(self, responses: Sequence[str], questions: Sequence[Question]) -> list[dict[str, Score]]:
        """The scores of each response, by metric."""
        ...

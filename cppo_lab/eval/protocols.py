"""What an evaluation protocol is: how questions become prompts, and responses become scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cppo_lab.tasks.benchmarks import Question
from cppo_lab.tasks.grading.verdict import Outcome


@dataclass(frozen=True)
class Prompt:
    """The text that a model continues. `is_chat` says that a chat template wrote it, special tokens included."""

    text: str
    is_chat: bool = False


@dataclass(frozen=True)
class Score:
    """What one way of extraction made of one response. `extracted` is None where it found nothing."""

    outcome: Outcome
    extracted: str | None

    @property
    def correct(self) -> bool:
        """Whether the response counts as right."""
        return self.outcome is Outcome.CORRECT


class EvaluationProtocol(Protocol):
    """A way to ask and to score. `metrics` names its scores, the one that the table leads with first."""

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
        """The length limit of a response, unless another is asked for."""
        ...

    @property
    def is_fixed(self) -> bool:
        """Whether decoding belongs to the protocol: greedy, one sample."""
        ...

    def prompts(self, questions: Sequence[Question], pool: Sequence[Question]) -> list[Prompt]:
        """One prompt per question; `pool` holds the questions that examples are drawn from."""
        ...

    def stops(self, prompt: Prompt) -> tuple[str, ...]:
        """The strings that end a response and are no part of it."""
        ...

    def score(self, responses: Sequence[str], questions: Sequence[Question]) -> list[dict[str, Score]]:
        """The scores of each response, by metric."""
        ...

"""The lab's own protocol: a model is asked as in training, and the lab's grader decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cppo_lab.eval.protocols import Prompt, Score
from cppo_lab.tasks.asking import CONTINUED, Asking
from cppo_lab.tasks.benchmarks import Question
from cppo_lab.tasks.grading.answers import Comparison
from cppo_lab.tasks.own_reward import OwnReward
from cppo_lab.tasks.problem import grade_responses

ChatTemplate = Callable[[str, str | None], str]
"""Formats a user's message, behind a system message if there is one, as the text that the model continues."""


@dataclass(frozen=True)
class NativeProtocol:
    """`asking` is how questions become prompts; None where they are prompts already, as those of the chain task are.

    `chat` is the model's chat template, for chat prompts. `is_trained` says that the model was trained with these
    prompts, so that its responses end as they did in training. `own_reward` takes the grader's place.
    """

    comparison: Comparison
    asking: Asking | None = None
    chat: ChatTemplate | None = None
    is_trained: bool = False
    own_reward: OwnReward | None = None
    max_new_tokens: int = 256
    name: str = "native"
    metrics: tuple[str, ...] = ("graded",)
    is_fixed: bool = False

    def prompts(self, questions: Sequence[Question], pool: Sequence[Question]) -> list[Prompt]:
        """See `EvaluationProtocol.prompts`; no examples are given."""
        return [self._prompt(question.question) for question in questions]

    def _prompt(self, question: str) -> Prompt:
        if self.asking is None:
            return Prompt(question)
        text = self.asking.text(question)
        if not self.asking.is_chat:
            return Prompt(text)
        assert self.chat is not None
        return Prompt(self.chat(text, self.asking.system), is_chat=True)

    def stops(self, prompt: Prompt) -> tuple[str, ...]:
        """See `EvaluationProtocol.stops`; a base model may continue with a question of its own."""
        may_go_on = self.asking is not None and self.asking.prompt == CONTINUED and not self.is_trained
        return ("\nQuestion:",) if may_go_on else ()

    def score(self, responses: Sequence[str], questions: Sequence[Question]) -> list[dict[str, Score]]:
        """See `EvaluationProtocol.score`."""
        asking = self.asking or Asking()
        problems = [
            asking.problem(each.question, each.answer, self.comparison, row=each.row) for each in questions
        ]
        grade = grade_responses if self.own_reward is None else self.own_reward.grade
        verdicts = grade(responses, problems)
        return [{"graded": Score(verdict.outcome, verdict.parsed)} for verdict in verdicts]

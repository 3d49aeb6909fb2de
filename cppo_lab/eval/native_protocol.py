"""The lab's own protocol: the model's chat template if it has one, a boxed or `####` answer, the lab's grader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cppo_lab.eval.protocols import Prompt, Score
from cppo_lab.tasks.benchmarks import Question
from cppo_lab.tasks.grading.pool import grader
from cppo_lab.tasks.gsm8k import prompt_text

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""Recommended for mathematics by the model cards of Qwen and DeepSeek."""

ChatTemplate = Callable[[str], str]
"""Formats a user's message as the text that the model continues."""


@dataclass(frozen=True)
class NativeProtocol:
    """`chat` formats the prompt if given; `plain` uses the question as it is, since the embedded task's questions are
    prompts already.
    """

    symbolic: bool
    chat: ChatTemplate | None = None
    plain: bool = False
    max_new_tokens: int = 256
    name: str = "native"
    metrics: tuple[str, ...] = ("graded",)
    is_fixed: bool = False

    def prompts(self, questions: Sequence[Question], pool: Sequence[Question]) -> list[Prompt]:
        """See `EvaluationProtocol.prompts`; no examples are given."""
        if self.plain:
            return [Prompt(question.question) for question in questions]
        if self.chat is None:
            return [Prompt(prompt_text(question.question)) for question in questions]
        return [Prompt(self.chat(f"{q.question}\n{INSTRUCTION}"), is_chat=True) for q in questions]

    def stops(self, prompt: Prompt) -> tuple[str, ...]:
        """See `EvaluationProtocol.stops`; a base model may continue with a question of its own."""
        return () if prompt.is_chat or self.plain else ("\nQuestion:",)

    def score(self, responses: Sequence[str], questions: Sequence[Question]) -> list[dict[str, Score]]:
        """See `EvaluationProtocol.score`."""
        verdicts = grader(self.symbolic).grade(responses, [question.answer for question in questions])
        return [{"graded": Score(verdict.outcome, verdict.parsed)} for verdict in verdicts]

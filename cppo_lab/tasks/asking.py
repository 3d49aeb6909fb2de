"""How a model is asked a question: one protocol for training, held-out evaluation and `cppo-lab eval`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cppo_lab.tasks.grading.answers import AnswerFormat, Comparison
from cppo_lab.tasks.grading.extraction import marked_answer
from cppo_lab.tasks.problem import Problem

AnswerForm = Literal["boxed", "hashes", "tag", "line", "none"]
"""The form in which an answer is asked for; `none` asks for nothing."""

QUESTION, INSTRUCTION = "{question}", "{instruction}"
INSTRUCTED = f"{QUESTION}\n{INSTRUCTION}"
"""The prompt of pretrained models."""
CONTINUED = f"Question: {QUESTION}\nAnswer:"
"""The prompt of from-scratch models, as lm-evaluation-harness writes it: the form is learnt from solutions."""

INSTRUCTIONS: Mapping[AnswerForm, str] = {
    # Recommended for mathematics by the model cards of Qwen and DeepSeek.
    "boxed": "Please reason step by step, and put your final answer within \\boxed{}.",
    "hashes": "Please reason step by step, and end with #### followed by your final answer.",
    "tag": "Please reason step by step, and put your final answer within <answer> and </answer>.",
    "line": 'Please reason step by step, and end with a line that says "Answer: " and your final answer.',
    "none": "",
}
_MARKS: Mapping[AnswerForm, str] = {
    "boxed": "\\boxed{%s}",
    "hashes": "#### %s",
    "tag": "<answer>%s</answer>",
    "line": "Answer: %s",
    "none": "#### %s",
}


@dataclass(frozen=True)
class AskedModel:
    """What the way of asking depends on: whether the model is pretrained, and whether it has a chat template."""

    is_pretrained: bool
    has_chat_template: bool = False


@dataclass(frozen=True)
class Asking:
    """How a question becomes a prompt, and how its answer is stated.

    `prompt` is a template with `{question}`, and `{instruction}` where the sentence that asks for `answer_format`
    belongs. With `is_chat` the prompt is a user's message, behind `system` if that is given.
    """

    prompt: str = INSTRUCTED
    system: str | None = None
    is_chat: bool = False
    answer_format: AnswerForm = "boxed"

    def text(self, question: str) -> str:
        """The prompt of a question, before any chat template."""
        asked = self.prompt.replace(INSTRUCTION, INSTRUCTIONS[self.answer_format])
        return asked.replace(QUESTION, question)

    def problem(
        self,
        question: str,
        answer: str,
        comparison: Comparison,
        working: str = "",
        row: Mapping[str, Any] | None = None,
    ) -> Problem:
        """The problem that a question of `row` with its reference answer poses; `working` is its written solution."""
        prompt = self.text(question)
        return Problem(
            prompt=prompt,
            answer=answer,
            solution=self.solution(working, answer, prompt) if working else "",
            is_chat=self.is_chat,
            format=self.graded_as(comparison),
            system=self.system,
            row=row,
        )

    def graded_as(self, comparison: Comparison) -> AnswerFormat:
        """How responses are graded. `Answer: …` counts where it was asked for; other marks always do."""
        return AnswerFormat(self.answer_format == "line", comparison)

    def stated(self, answer: str) -> str:
        """The answer in the form that was asked for."""
        return _MARKS[self.answer_format] % answer

    def solution(self, text: str, answer: str, prompt: str) -> str:
        """A written solution as a response to `prompt`: `text` with its answer in the form that was asked for.

        A solution that marks its answer in some other way than by `####` stays as it is.
        """
        working, hashes, _ = text.rpartition("####")
        if hashes and self.answer_format not in ("hashes", "none"):
            text = f"{working.rstrip()}\n{self.stated(answer)}"
        elif marked_answer(text, self.answer_format == "line") is None:
            text = f"{text}\n{self.stated(answer)}"
        return text if self.is_chat or prompt[-1].isspace() else f" {text}"


def default_asking(is_pretrained: bool) -> Asking:
    """How a model is asked unless anything is set, but for its chat template."""
    return Asking() if is_pretrained else Asking(CONTINUED, answer_format="hashes")

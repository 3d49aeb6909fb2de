"""Tasks over a fixed set of questions, with the keys that say how a model is asked."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from cppo_lab.errors import UserError
from cppo_lab.tasks.asking import QUESTION, AnswerForm, AskedModel, Asking, default_asking
from cppo_lab.tasks.problem_set import ProblemSetConfig


class QuestionSetConfig(ProblemSetConfig):
    """Configuration of a task of questions, with the keys that say how a model is asked.

    `prompt`, `chat` and `answer_format` are null until `asked_of` fills them in: from-scratch models continue
    `Question: … Answer:` and learn the form of the answer from solutions; pretrained models are told to box it, by
    their chat template if they have one.
    """

    prompt: str | None = None
    system: str | None = None
    chat: bool | None = None
    answer_format: AnswerForm | None = None

    @model_validator(mode="after")
    def _holds_the_question(self) -> Self:
        if self.prompt is not None and QUESTION not in self.prompt:
            raise ValueError(f"prompt = {self.prompt[:60]}: must contain {QUESTION}")
        return self

    def asked_of(self, model: AskedModel) -> Self:
        """See `TaskConfig.asked_of`."""
        if self.chat and not model.has_chat_template:
            raise UserError(
                "task.chat=true: the model's tokenizer has no chat template; give task.chat=false."
            )
        chat = model.has_chat_template if self.chat is None else self.chat
        if self.system is not None and not chat:
            why = (
                "task.chat is false"
                if model.has_chat_template
                else "the model's tokenizer has no chat template"
            )
            raise UserError(f"task.system={self.system[:40]}: only applies to chat prompts, and {why}.")
        asking = default_asking(model.is_pretrained)
        return self.model_copy(
            update={
                "prompt": self.prompt or asking.prompt,
                "chat": chat,
                "answer_format": self.answer_format or asking.answer_format,
            }
        )

    @property
    def asking(self) -> Asking:
        """See `TaskConfig.asking`; what is null is as for from-scratch models."""
        usual = default_asking(is_pretrained=False)
        return Asking(
            self.prompt or usual.prompt,
            self.system,
            bool(self.chat),
            self.answer_format or usual.answer_format,
        )

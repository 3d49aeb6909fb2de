"""Tasks over a fixed set of questions, with the keys that say how a model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import model_validator

from cppo_lab.errors import UserError
from cppo_lab.tasks.asking import QUESTION, AnswerForm, AskedModel, Asking, default_asking
from cppo_lab.tasks.grading.verdict import Verdict
from cppo_lab.tasks.own_reward import OwnReward, columns_of
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.problem_set import ProblemSetConfig


class QuestionSetConfig(ProblemSetConfig):
    """Configuration of a task of questions, with the keys that say how a model is asked.

    `prompt`, `chat` and `answer_format` are null until `asked_of` fills them in: from-scratch models continue
    `Question: … Answer:` and learn the form of the answer from solutions; pretrained models are told to box it, by
    their chat template if they have one. `reward` is a Python file with a function of one's own, `reward_function`, in
    the grader's place (see `OwnReward`); from a reward of `reward_correct` on, a response counts as correct.
    """

    path_keys: ClassVar[tuple[str, ...]] = ("reward",)

    prompt: str | None = None
    system: str | None = None
    chat: bool | None = None
    answer_format: AnswerForm | None = None
    reward: str | None = None
    reward_function: str = "reward"
    reward_correct: float = 1.0

    @model_validator(mode="after")
    def _holds_the_question(self) -> Self:
        if self.prompt is not None and QUESTION not in self.prompt:
            raise ValueError(f"prompt = {self.prompt[:60]}: must contain {QUESTION}")
        return self

    @model_validator(mode="after")
    def _has_a_reward_file(self) -> Self:
        if self.reward is None and self.reward_function != "reward":
            raise ValueError(
                f"reward_function = {self.reward_function}: needs its file; give task.reward=FILE.py"
            )
        if self.reward is None and self.reward_correct != 1.0:
            raise ValueError(f"reward_correct = {self.reward_correct:g}: only applies to a task.reward")
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
    def own_reward(self) -> OwnReward | None:
        """The reward function of one's own, if there is one."""
        if self.reward is None:
            return None
        return OwnReward(self.reward, self.reward_function, self.reward_correct)

    def grade(self, responses: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """See `ProblemSetConfig.grade`."""
        own = self.own_reward
        return super().grade(responses, problems) if own is None else own.grade(responses, problems)

    def check_files(self) -> None:
        """See `TaskConfig.check_files`: the reward function must be there, and find its columns in local data."""
        if self.own_reward is not None:
            self.own_reward.check()
        if self.reads_local_data:
            found = self.problems()
            if self.own_reward is not None:
                self.own_reward.check(columns_of(found.training[:1]))

    @property
    def reads_local_data(self) -> bool:
        """Whether all problems can be read without the hub."""
        return True

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

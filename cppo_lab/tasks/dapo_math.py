"""DAPO-Math-17k (arXiv:2503.14476): competition problems with integer answers to train on, AIME held out.

The data set of the authors (`BytedTsinghua-SIA/DAPO-Math-17k`) holds every problem about a hundred times: 1,791,700
rows of some 17,400 problems. The hub's copy that is read here, `open-r1/DAPO-Math-17k-Processed`, holds each once
(17,398 rows, English and Chinese). Either layout can be read from a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cppo_lab.errors import UserError
from cppo_lab.fields import Count, Group, Positive, Revision
from cppo_lab.tasks.asking import QUESTION, AskedModel, Asking
from cppo_lab.tasks.benchmarks import BENCHMARKS, Question, load_questions
from cppo_lab.tasks.grading.numbers import normalised, parse_number
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.problem_set import ProblemSet, ProblemSetTask
from cppo_lab.tasks.rows import hub_rows, local_rows
from cppo_lab.tasks.task import HeldoutSampling, Task, TaskConfig, tasks

HUB_ID = "open-r1/DAPO-Math-17k-Processed"
HUB_CONFIG = "all"
HUB_REVISION = "31dd309567e3da778038cc87d868b6097a3ccf68"

MathBenchmark = Literal["aime24", "aime25", "aime26"]
_AIME_PROBLEMS = 30

# The instruction around every problem of the data set, to the letter.
_BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
_AFTER = '\n\nRemember to put your answer on its own line after "Answer:".'


def prompt_text(question: str) -> str:
    """The prompt of a question, as DAPO asks it."""
    return f"{_BEFORE}{question}{_AFTER}"


def bare_question(text: str) -> str:
    """The question in a prompt of the data set, or in one that holds the question alone."""
    return text.removeprefix(_BEFORE).removesuffix(_AFTER).strip()


def question_key(question: str) -> str:
    """Equal for questions that differ in white space and dollar signs alone: copies are typeset differently."""
    return "".join(question.replace("$", "").split())


def _row_question(row: Mapping[str, Any], where: str) -> str:
    """The question: a text, or the content of the first of several chat messages."""
    prompt = row.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], Mapping):
        prompt = prompt[0].get("content")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{where}: 'prompt' must be a text, or a list of chat messages.")
    return bare_question(prompt)


def _row_answer(row: Mapping[str, Any], where: str) -> str:
    """The reference answer: `solution` of the processed data set, `reward_model.ground_truth` of the original."""
    reward_model = row.get("reward_model")
    answer = row.get("solution")
    if answer is None and isinstance(reward_model, Mapping):
        answer = reward_model.get("ground_truth")
    if answer is None:
        raise UserError(f"{where}: needs the key 'solution', or 'reward_model' with 'ground_truth'.")
    return str(answer).strip()


def training_problems(
    rows: Sequence[Any], held_out: Iterable[str], source: str
) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """The distinct questions with numeric answers in the rows of `source`, and counts of what was dropped and why.

    `held_out` holds the questions of the evaluation. Counts: `duplicates` repeat an earlier row, `conflicting` are the
    rows of questions with different answers, `not_numeric` have no number as their answer, and `held_out` questions are
    in the evaluation too; `training` questions are left. Raises UserError for a row without question or answer, and if
    nothing is left.
    """
    questions: dict[str, str] = {}
    answers: dict[str, list[str]] = {}
    not_numeric = 0
    for number, row in enumerate(rows, start=1):
        where = f"{source}, row {number}"
        if not isinstance(row, Mapping):
            raise UserError(f"{where}: a DAPO-Math row needs the keys 'prompt' and 'solution'.")
        question, answer = _row_question(row, where), parse_number(_row_answer(row, where))
        if answer is None:
            not_numeric += 1
            continue
        key = question_key(question)
        questions.setdefault(key, question)
        answers.setdefault(key, []).append(normalised(answer))
    conflicting = {key for key, found in answers.items() if len(set(found)) > 1}
    held_out_keys = {question_key(question) for question in held_out}
    kept = [key for key in questions if key not in conflicting and key not in held_out_keys]
    if not kept:
        raise UserError(f"task.path={source}: leaves no problem to train on; {len(rows)} rows were read.")
    counts = {
        "rows": len(rows),
        "duplicates": sum(len(found) - 1 for key, found in answers.items() if key not in conflicting),
        "conflicting": sum(len(answers[key]) for key in conflicting),
        "not_numeric": not_numeric,
        "held_out": sum(key in held_out_keys for key in questions if key not in conflicting),
        "training": len(kept),
    }
    return [(questions[key], answers[key][0]) for key in kept], counts


class HeldoutPaths(Group):
    """A local file for each benchmark; None takes the hub's, at the revision that `cppo-lab eval` pins."""

    aime24: str | None
    aime25: str | None
    aime26: str | None


@tasks.register("dapo_math", about="Competition problems, with AIME held out.", paper="arXiv:2503.14476")
class DapoMathConfig(TaskConfig):
    """DAPO-Math-17k to train on, from the hub or a local file, with AIME held out.

    `prompt` chat puts the data set's instruction and the problem into the model's chat template. `samples`,
    `evaluation_temperature` and `evaluation_top_p` apply to held-out problems only.
    """

    prompt_tokens: ClassVar[int] = 220
    path_keys: ClassVar[tuple[str, ...]] = (
        "path",
        *(f"heldout_paths.{name}" for name in HeldoutPaths.model_fields),
    )

    path: str | None
    revision: Revision
    prompt: Literal["plain", "chat"]
    benchmarks: Annotated[tuple[MathBenchmark, ...], Field(min_length=1)]
    heldout_paths: HeldoutPaths
    samples: Annotated[int, Field(ge=1, le=1024)]
    evaluation_temperature: Positive
    evaluation_top_p: Annotated[float, Field(gt=0, le=1)]
    max_response_tokens: Count

    @model_validator(mode="after")
    def _fits_together(self) -> DapoMathConfig:
        if len(set(self.benchmarks)) < len(self.benchmarks):
            raise ValueError(f"benchmarks = {list(self.benchmarks)}: must name each benchmark once")
        for name, path in self.heldout_paths.model_dump().items():
            if path and name not in self.benchmarks:
                raise ValueError(
                    f"heldout_paths.{name} = {path}: must be null unless benchmarks (now {list(self.benchmarks)}) "
                    f"name {name}"
                )
        return self

    @property
    def response_limit(self) -> int:
        """See `TaskConfig.response_limit`."""
        return self.max_response_tokens

    @property
    def heldout_count(self) -> int:
        """See `TaskConfig.heldout_count`; each AIME has 30 problems."""
        return _AIME_PROBLEMS * len(self.benchmarks)

    @property
    def heldout_sampling(self) -> HeldoutSampling:
        """See `TaskConfig.heldout_sampling`."""
        return HeldoutSampling(self.samples, self.evaluation_temperature, self.evaluation_top_p)

    def asked_of(self, model: AskedModel) -> Self:
        """See `TaskConfig.asked_of`; whether to ask by chat is part of the protocol, and never guessed."""
        if self.prompt == "chat" and not model.has_chat_template:
            raise UserError(
                "task.prompt=chat: the model's tokenizer has no chat template; give task.prompt=plain."
            )
        return self

    @property
    def asking(self) -> Asking:
        """See `TaskConfig.asking`."""
        return Asking(prompt_text(QUESTION), is_chat=self.prompt == "chat", answer_format="line")

    def check_files(self) -> None:
        """See `TaskConfig.check_files`."""
        for name, path in self.heldout_paths.model_dump().items():
            if path:
                _benchmark(name, path)
        if self.path:
            training_problems(local_rows(Path(self.path)), (), self.path)

    def build(self) -> Task:
        """See `TaskConfig.build`."""
        return ProblemSetTask(self._problems)

    def _problems(self) -> ProblemSet:
        paths = self.heldout_paths.model_dump()
        benchmarks = {name: _benchmark(name, paths[name]) for name in self.benchmarks}
        held_out = [question.question for found in benchmarks.values() for question in found]
        rows = (
            local_rows(Path(self.path)) if self.path else hub_rows(HUB_ID, HUB_CONFIG, "train", self.revision)
        )
        training, counts = training_problems(rows, held_out, self.path or HUB_ID)
        columns = [
            [self._problem(question.question, question.answer, name) for question in found]
            for name, found in benchmarks.items()
        ]
        # By turns, so that the first few problems are from every benchmark.
        heldout = [problem for row in zip_longest(*columns) for problem in row if problem is not None]
        return ProblemSet([self._problem(*pair) for pair in training], heldout, counts)

    def _problem(self, question: str, answer: str, benchmark: str | None = None) -> Problem:
        return replace(self.asking.problem(question, answer, "number"), benchmark=benchmark)


def _benchmark(name: str, path: str | None) -> list[Question]:
    remedy = f"task.heldout_paths.{name} takes a file that has them"
    return load_questions(BENCHMARKS[name], path, remedy=remedy)

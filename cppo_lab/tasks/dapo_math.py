"""DAPO-Math-17k (arXiv:2503.14476): competition problems with integer answers to train on, AIME held out.

The data set of the authors (`BytedTsinghua-SIA/DAPO-Math-17k`) holds every problem about a hundred times: 1,791,700
rows of some 17,400 problems. The hub's copy that is read here, `open-r1/DAPO-Math-17k-Processed`, holds each once
(17,398 rows, English and Chinese). Either layout can be read from a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cppo_lab.errors import UserError
from cppo_lab.tasks.benchmarks import BENCHMARKS, Question, load_questions
from cppo_lab.tasks.grading.numbers import normalised, parse_number
from cppo_lab.tasks.order import ShuffledStream
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.rows import hub_rows, local_rows

HUB_ID = "open-r1/DAPO-Math-17k-Processed"
HUB_CONFIG = "all"
HUB_REVISION = "31dd309567e3da778038cc87d868b6097a3ccf68"

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


@dataclass(frozen=True)
class DataCounts:
    """What became of the rows of the training data.

    `duplicates` repeat an earlier row, `conflicting` are the rows of problems that come with different answers,
    `not_numeric` have no number as their answer, and `held_out` problems are in the evaluation too. `training`
    problems are left.
    """

    rows: int
    duplicates: int
    conflicting: int
    not_numeric: int
    held_out: int
    training: int


def _row_question(row: Mapping[str, Any], where: str) -> str:
    """The question: a text, or the content of the first of several chat messages."""
    prompt = row.get("prompt")
    # Parquet gives an array of messages, JSON a list.
    if isinstance(prompt, (list, np.ndarray)) and len(prompt) and isinstance(prompt[0], Mapping):
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


@dataclass(frozen=True)
class TrainingData:
    """Distinct questions with their integer or decimal answers, and how many rows were left out and why."""

    problems: tuple[Problem, ...]
    counts: DataCounts


def training_data(
    rows: Sequence[Any], held_out: Iterable[str], source: str, prompt: Literal["plain", "chat"]
) -> TrainingData:
    """What the rows of `source` leave to train on; `held_out` holds the questions of the evaluation.

    Raises UserError for a row without question or answer, and where nothing is left.
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
    counts = DataCounts(
        rows=len(rows),
        duplicates=sum(len(found) - 1 for key, found in answers.items() if key not in conflicting),
        conflicting=sum(len(answers[key]) for key in conflicting),
        not_numeric=not_numeric,
        held_out=sum(key in held_out_keys for key in questions if key not in conflicting),
        training=len(kept),
    )
    asked = tuple(_problem(questions[key], answers[key][0], prompt) for key in kept)
    return TrainingData(asked, counts)


def _problem(
    question: str, answer: str, prompt: Literal["plain", "chat"], benchmark: str | None = None
) -> Problem:
    return Problem(
        prompt=prompt_text(question),
        answer=answer,
        is_chat=prompt == "chat",
        has_answer_line=True,
        benchmark=benchmark,
    )


def _benchmark(name: str, path: str | None) -> list[Question]:
    remedy = f"task.heldout_paths.{name} takes a file that has them"
    return load_questions(BENCHMARKS[name], path, remedy=remedy)


@dataclass(frozen=True)
class DapoMathTask:
    """DAPO-Math-17k for training, competitions for evaluation.

    `path` is a local training file or None for the hub; `heldout_paths` gives each benchmark of the evaluation a local
    file or None for the hub's.
    """

    path: str | None
    heldout_paths: Mapping[str, str | None]
    prompt: Literal["plain", "chat"] = "plain"
    revision: str = HUB_REVISION
    name: str = field(default="dapo_math", init=False)

    @cached_property
    def _questions(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Questions with their answers, by benchmark."""
        return {
            name: [(q.question, q.answer) for q in _benchmark(name, path)]
            for name, path in self.heldout_paths.items()
        }

    @cached_property
    def _heldout(self) -> tuple[Problem, ...]:
        columns = [
            [_problem(question, answer, self.prompt, name) for question, answer in pairs]
            for name, pairs in self._questions.items()
        ]
        # By turns, so that the first few problems are of every benchmark.
        return tuple(p for row in zip_longest(*columns) for p in row if p is not None)

    @cached_property
    def data(self) -> TrainingData:
        """The training data, read when first needed."""
        rows = self._rows()
        held_out = [question for pairs in self._questions.values() for question, _ in pairs]
        return training_data(rows, held_out, self.path or HUB_ID, self.prompt)

    def _rows(self) -> Sequence[Any]:
        return (
            local_rows(Path(self.path)) if self.path else hub_rows(HUB_ID, HUB_CONFIG, "train", self.revision)
        )

    @cached_property
    def _stream(self) -> ShuffledStream[Problem]:
        return ShuffledStream(self.data.problems)

    def check_files(self) -> None:
        """Read the local files, and nothing of the hub. Raises UserError where one cannot be used."""
        for name, path in self.heldout_paths.items():
            if path:
                _benchmark(name, path)
        if self.path:
            training_data(local_rows(Path(self.path)), (), self.path, self.prompt)

    def training_problems(self, step: int, count: int, seed: int) -> list[Problem]:
        """See `Task.training_problems`; the stream runs through all problems, each time in another order."""
        return self._stream.batch(step, count, seed)

    def heldout_problems(self) -> Sequence[Problem]:
        """See `Task.heldout_problems`."""
        return self._heldout

    def warmup_problems(
        self, rng: np.random.Generator, count: int, longest: int, corruption: float
    ) -> list[Problem]:
        """See `Task.warmup_problems`. Raises UserError: the data set has answers, and no written solutions."""
        raise UserError("task.kind=dapo_math: has no written solutions to learn from; give warmup=none.")

    def supervised_texts(self) -> Sequence[str]:
        """Empty: pretrained models bring their tokenizer."""
        return ()

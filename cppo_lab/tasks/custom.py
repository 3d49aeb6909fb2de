"""A task of your own without code: questions and answers from a file or a hub data set, with columns of any name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import model_validator

from cppo_lab.errors import UserError
from cppo_lab.fields import Revision
from cppo_lab.tasks.benchmarks import CUSTOM, Benchmark, Question, cell_text, column_names, load_questions
from cppo_lab.tasks.grading.answers import AnswerFormat, Comparison
from cppo_lab.tasks.grading.extraction import marked_answer
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.problem_set import ProblemSet, ProblemSetConfig, without_heldout
from cppo_lab.tasks.task import tasks

QUESTION = "{question}"
_REMEDY = "name others by task.question_field, task.answer_field and task.solution_field"


@tasks.register(CUSTOM, about="Your own data, from a file or the hub, with columns of any name.")
class CustomConfig(ProblemSetConfig):
    """Problems from `path` (JSONL, JSON, CSV, TSV or Parquet) or from the split `split` of the hub's `dataset`.

    The held-out set is the first `heldout` problems of `heldout_path` or of `heldout_split`; without either, `heldout`
    problems are split off, the same whatever the order of the rows. `question_field` may name several columns,
    separated by commas. `prompt` is a template with `{question}`; with `chat`, it goes into the model's chat template.
    `extraction` and `grader` are the parts of `AnswerFormat`.
    """

    path_keys: ClassVar[tuple[str, ...]] = ("path", "heldout_path")

    path: str | None
    heldout_path: str | None
    dataset: str | None
    subset: str | None
    revision: Revision | None
    split: str
    heldout_split: str | None
    question_field: str
    answer_field: str
    solution_field: str | None
    prompt: str
    chat: bool
    extraction: Literal["marked", "answer_line"]
    grader: Comparison

    @model_validator(mode="after")
    def _fits_together(self) -> CustomConfig:
        if (self.path is None) == (self.dataset is None):
            raise ValueError(
                f"path = {self.path}: give either task.path=FILE or task.dataset=ORG/NAME "
                f"(now {self.dataset or 'null'})"
            )
        if (self.revision is None) != (self.dataset is None):
            raise ValueError(
                f"revision = {self.revision}: must be the commit of task.dataset, and null without a data set"
            )
        if self.dataset is None and (self.subset or self.heldout_split):
            key = "subset" if self.subset else "heldout_split"
            raise ValueError(f"{key} = {getattr(self, key)}: must be null without a task.dataset")
        if self.heldout_path and self.heldout_split:
            raise ValueError(f"heldout_split = {self.heldout_split}: must be null beside a task.heldout_path")
        if QUESTION not in self.prompt:
            raise ValueError(f"prompt = {self.prompt[:60]}: must contain {QUESTION}")
        return self

    @property
    def has_solutions(self) -> bool:
        """Whether a column of written solutions is named."""
        return self.solution_field is not None

    def check_scratch_model(self, context: int) -> None:
        """See `TaskConfig.check_scratch_model`."""
        if not self.has_solutions:
            raise ValueError(
                "model.kind = scratch: must be pretrained (model=pretrained model.path=…), or have written solutions "
                "to be warmed up with (task.solution_field=COLUMN warmup=gsm8k)"
            )

    def check_files(self) -> None:
        """See `TaskConfig.check_files`."""
        if self.path:
            self.problems()
        elif self.heldout_path:
            self._load(self.heldout_path, self.split)

    def problems(self) -> ProblemSet:
        """See `ProblemSetConfig.problems`."""
        source = f"task.path={self.path}" if self.path else f"task.dataset={self.dataset}"
        training = self._load(self.path, self.split)
        if self.heldout_path or self.heldout_split:
            heldout = self._load(self.heldout_path, self.heldout_split or self.split)[: self.heldout]
        else:
            heldout = self._split_off(training, source)
        return without_heldout(training, heldout, source)

    def _split_off(self, problems: Sequence[Problem], source: str) -> list[Problem]:
        distinct = {problem.prompt: problem for problem in problems}
        if len(distinct) <= self.heldout:
            raise UserError(
                f"task.heldout={self.heldout}: {source} holds only {len(distinct)} different problems; "
                "give fewer, or a task.heldout_path."
            )
        # Files are often sorted; hashes choose evenly, and alike however the rows are ordered.
        chosen = sorted(distinct, key=lambda prompt: hashlib.sha256(prompt.encode()).digest())
        return [distinct[prompt] for prompt in chosen[: self.heldout]]

    def _load(self, path: str | None, split: str) -> list[Problem]:
        source = Benchmark(
            name=CUSTOM,
            question=column_names(self.question_field),
            answer=self.answer_field,
            comparison=self.grader,
            hub_id=self.dataset,
            hub_config=self.subset,
            split=split,
            revision=self.revision or "",
        )
        questions = load_questions(source, path, remedy=_REMEDY)
        where = path or self.dataset
        return [self._problem(each, f"{where}, row {number}") for number, each in enumerate(questions, 1)]

    def _problem(self, question: Question, where: str) -> Problem:
        prompt = self.prompt.replace(QUESTION, question.question)
        is_line = self.extraction == "answer_line"
        return Problem(
            prompt=prompt,
            answer=question.answer,
            solution=self._solution(question, prompt, where),
            is_chat=self.chat,
            format=AnswerFormat(is_line, self.grader),
        )

    def _solution(self, question: Question, prompt: str, where: str) -> str:
        """The written solution as a response to `prompt`, with the answer marked."""
        if self.solution_field is None:
            return ""
        if self.solution_field not in question.row:
            have = ", ".join(sorted(question.row))
            raise UserError(f"{where}: needs the column {self.solution_field} (it has {have}); {_REMEDY}.")
        text = cell_text(question.row[self.solution_field], where, self.solution_field)
        if marked_answer(text, self.extraction == "answer_line") is None:
            text = f"{text}\n#### {question.answer}"
        return text if prompt[-1].isspace() else f" {text}"

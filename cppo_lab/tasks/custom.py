"""A task of your own without code: questions and answers from a file or a hub data set, with columns of any name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

from pydantic import model_validator

from cppo_lab.errors import UserError
from cppo_lab.fields import Revision
from cppo_lab.tasks.benchmarks import CUSTOM, Benchmark, Question, cell_text, column_names, load_questions
from cppo_lab.tasks.grading.answers import Comparison
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.problem_set import ProblemSet, without_heldout
from cppo_lab.tasks.question_set import QuestionSetConfig
from cppo_lab.tasks.task import tasks

_Posed = tuple[str, Problem]
"""A question as it stands in the data, and the problem that it poses."""

_REMEDY = "name others by task.question_column, task.answer_column and task.solution_column"


@tasks.register(CUSTOM, about="Your own data, from a file or the hub, with columns of any name.")
class CustomConfig(QuestionSetConfig):
    """Problems from `path` (JSONL, JSON, CSV, TSV or Parquet) or from the split `split` of the hub's `dataset`.

    The held-out set is the first `heldout` problems of `heldout_path` or of `heldout_split`; without either, `heldout`
    problems are split off, the same whatever the order of the rows. `question_column` may name several columns,
    separated by commas. `grader` is how answers are compared (see `AnswerFormat`).
    """

    path_keys: ClassVar[tuple[str, ...]] = ("path", "heldout_path", "reward")

    path: str | None
    heldout_path: str | None
    dataset: str | None
    subset: str | None
    revision: Revision | None
    split: str
    heldout_split: str | None
    question_column: str
    answer_column: str
    solution_column: str | None
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
        return self

    @property
    def has_solutions(self) -> bool:
        """Whether a column of written solutions is named."""
        return self.solution_column is not None

    def check_scratch_model(self, context: int) -> None:
        """See `TaskConfig.check_scratch_model`."""
        if not self.has_solutions:
            raise ValueError(
                "model.kind = scratch: must be pretrained (model=pretrained model.path=…), or have written solutions "
                "to be warmed up with (task.solution_column=COLUMN warmup=gsm8k)"
            )

    @property
    def reads_local_data(self) -> bool:
        """See `QuestionSetConfig.reads_local_data`."""
        return self.path is not None

    def check_files(self) -> None:
        """See `TaskConfig.check_files`."""
        super().check_files()
        if not self.path and self.heldout_path:
            self._load(self.heldout_path, self.split)

    def problems(self) -> ProblemSet:
        """See `ProblemSetConfig.problems`."""
        source = f"task.path={self.path}" if self.path else f"task.dataset={self.dataset}"
        training = self._load(self.path, self.split)
        if self.heldout_path or self.heldout_split:
            heldout = self._load(self.heldout_path, self.heldout_split or self.split)[: self.heldout]
        else:
            heldout = self._split_off(training, source)
        return without_heldout([each for _, each in training], [each for _, each in heldout], source)

    def _split_off(self, problems: Sequence[_Posed], source: str) -> list[_Posed]:
        distinct = {question: (question, problem) for question, problem in problems}
        if len(distinct) <= self.heldout:
            raise UserError(
                f"task.heldout={self.heldout}: {source} holds only {len(distinct)} different problems; "
                "give fewer, or a task.heldout_path."
            )
        # Files are often sorted; hashes choose evenly, and alike however the rows are ordered and the model is asked.
        chosen = sorted(distinct, key=lambda question: hashlib.sha256(question.encode()).digest())
        return [distinct[question] for question in chosen[: self.heldout]]

    def _load(self, path: str | None, split: str) -> list[_Posed]:
        source = Benchmark(
            name=CUSTOM,
            question=column_names(self.question_column),
            answer=self.answer_column,
            # A reward function of one's own reads references that the grader could not compare.
            comparison="symbolic" if self.own_reward and self.grader == "number" else self.grader,
            hub_id=self.dataset,
            hub_config=self.subset,
            split=split,
            revision=self.revision or "",
        )
        questions = load_questions(source, path, remedy=_REMEDY)
        where = path or self.dataset
        return [
            (each.question, self._problem(each, f"{where}, row {number}"))
            for number, each in enumerate(questions, 1)
        ]

    def _problem(self, question: Question, where: str) -> Problem:
        working = self._working(question, where)
        return self.asking.problem(question.question, question.answer, self.grader, working, question.row)

    def _working(self, question: Question, where: str) -> str:
        if self.solution_column is None:
            return ""
        if self.solution_column not in question.row:
            have = ", ".join(sorted(question.row))
            raise UserError(f"{where}: needs the column {self.solution_column} (it has {have}); {_REMEDY}.")
        return cell_text(question.row[self.solution_column], where, self.solution_column)

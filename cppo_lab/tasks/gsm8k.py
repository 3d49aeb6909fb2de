"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): from the hub at a pinned revision, or from a local file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from cppo_lab.errors import UserError
from cppo_lab.fields import Revision
from cppo_lab.tasks.benchmarks import BENCHMARKS, GSM8K, Question, load_questions
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.problem_set import ProblemSet, without_heldout
from cppo_lab.tasks.question_set import QuestionSetConfig
from cppo_lab.tasks.task import tasks

_REMEDY = "task=custom reads columns of other names"


@tasks.register(GSM8K, about="Grade-school word problems.", paper="arXiv:2110.14168")
class Gsm8kConfig(QuestionSetConfig):
    """GSM8K: `path` is a local training file, or None for the hub.

    The held-out set is `heldout_path`, or the hub's test split; with a local training file alone, its last `heldout`
    problems, which are then never trained on. A reference is a number, or a written solution that ends in `####` and
    one.
    """

    prompt_tokens: ClassVar[int] = 160
    path_keys: ClassVar[tuple[str, ...]] = ("path", "heldout_path", "reward")

    path: str | None
    heldout_path: str | None
    revision: Revision

    def problems(self) -> ProblemSet:
        """See `ProblemSetConfig.problems`."""
        training = self._load(self.path, "train")
        if self.heldout_path or not self.path:
            heldout = self._load(self.heldout_path, "test")[: self.heldout]
        else:
            if len(training) <= self.heldout:
                raise UserError(
                    f"task.heldout={self.heldout}: {self.path} holds only {len(training)} problems; "
                    "give fewer, or a task.heldout_path."
                )
            training, heldout = training[: -self.heldout], training[-self.heldout :]
        return without_heldout(training, heldout, f"task.path={self.path}")

    def _load(self, path: str | None, split: str) -> Sequence[Problem]:
        source = replace(BENCHMARKS[GSM8K], revision=self.revision)
        return [self._problem(each) for each in load_questions(source, path, split, _REMEDY)]

    def _problem(self, question: Question) -> Problem:
        written = str(question.row["answer"])
        working = written if "####" in written else ""
        return self.asking.problem(question.question, question.answer, "number", working, question.row)

    @property
    def has_solutions(self) -> bool:
        """Answers are written out step by step."""
        return True

    @property
    def reads_local_data(self) -> bool:
        """See `QuestionSetConfig.reads_local_data`."""
        return self.path is not None

    def check_files(self) -> None:
        """See `TaskConfig.check_files`."""
        super().check_files()
        if not self.path and self.heldout_path:
            self._load(self.heldout_path, "test")

"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): from the hub at a pinned revision, or from a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from cppo_lab.errors import UserError
from cppo_lab.fields import Revision
from cppo_lab.tasks.grading.numbers import parse_number
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.problem_set import ProblemSet, ProblemSetConfig, without_heldout
from cppo_lab.tasks.rows import hub_rows, local_rows
from cppo_lab.tasks.task import tasks

HUB_ID = "openai/gsm8k"
HUB_REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"


def prompt_text(question: str) -> str:
    """The plain-text prompt of a question, as lm-evaluation-harness writes it."""
    return f"Question: {question}\nAnswer:"


def _problem(row: Any, where: str) -> Problem:
    if not isinstance(row, dict) or not {"question", "answer"} <= row.keys():
        raise UserError(f"{where}: a GSM8K row needs the keys 'question' and 'answer'.")
    question, solution = row["question"], row["answer"]
    if not isinstance(question, str) or not isinstance(solution, str):
        raise UserError(f"{where}: 'question' and 'answer' must be text.")
    answer = solution.rpartition("####")[2].strip()
    if "####" not in solution or parse_number(answer) is None:
        raise UserError(f"{where}: 'answer' must end in '#### NUMBER'.")
    return Problem(prompt=prompt_text(question), answer=answer, solution=" " + solution)


def load_problems(path: str | None, split: str, revision: str = HUB_REVISION) -> list[Problem]:
    """All problems of a local file, or of a hub split.

    Raises UserError if the file is missing, unreadable or empty, or a row has no numeric answer.
    """
    rows = local_rows(Path(path)) if path else hub_rows(HUB_ID, "main", split, revision)
    if not rows:
        raise UserError(f"{path or HUB_ID}: contains no problems.")
    return [_problem(row, f"{path or HUB_ID}, row {number}") for number, row in enumerate(rows, start=1)]


@tasks.register("gsm8k", about="Grade-school word problems.", paper="arXiv:2110.14168")
class Gsm8kConfig(ProblemSetConfig):
    """GSM8K: `path` is a local training file, or None for the hub.

    The held-out set is `heldout_path`, or the hub's test split; with a local training file alone, its last `heldout`
    problems, which are then never trained on.
    """

    prompt_tokens: ClassVar[int] = 160
    path_keys: ClassVar[tuple[str, ...]] = ("path", "heldout_path")

    path: str | None
    heldout_path: str | None
    revision: Revision

    def problems(self) -> ProblemSet:
        """See `ProblemSetConfig.problems`."""
        training = load_problems(self.path, "train", self.revision)
        if self.heldout_path or not self.path:
            heldout = load_problems(self.heldout_path, "test", self.revision)[: self.heldout]
        else:
            if len(training) <= self.heldout:
                raise UserError(
                    f"task.heldout={self.heldout}: {self.path} holds only {len(training)} problems; "
                    "give fewer, or a task.heldout_path."
                )
            training, heldout = training[: -self.heldout], training[-self.heldout :]
        return without_heldout(training, heldout, f"task.path={self.path}")

    @property
    def has_solutions(self) -> bool:
        """Answers are written out step by step."""
        return True

    def check_files(self) -> None:
        """See `TaskConfig.check_files`."""
        if self.path:
            self.problems()
        elif self.heldout_path:
            load_problems(self.heldout_path, "test", self.revision)

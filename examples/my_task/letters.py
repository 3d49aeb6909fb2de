"""A task of your own, in one file: how often does a letter occur in a word?

b in abcabb:
0 1 0 0 1 1 = 3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import model_validator

from cppo_lab.fields import Count
from cppo_lab.tasks.grading.verdict import Outcome, Verdict, judged
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.problem_set import ProblemSet, ProblemSetConfig
from cppo_lab.tasks.task import tasks

LETTERS = "abcde"


@tasks.register("letters", about="How often a letter occurs in a word.")
class LettersConfig(ProblemSetConfig):
    """`size` different problems over words of `word_length` letters, `heldout` of them held out."""

    prompt_tokens: ClassVar[int] = 12
    # Only for from-scratch models; without it, their tokenizer is trained on the prompts and solutions.
    vocabulary: ClassVar[tuple[str, ...]] = (*LETTERS, *"0123456789", " in ", ":\n", " ", "= ")

    word_length: Count
    size: Count

    @model_validator(mode="after")
    def _fits_together(self) -> LettersConfig:
        most = len(LETTERS) ** (self.word_length + 1) // 2
        if not self.heldout < self.size <= most:
            raise ValueError(
                f"size = {self.size}: must be above heldout = {self.heldout} and at most {most} "
                f"for word_length = {self.word_length}"
            )
        return self

    @property
    def has_solutions(self) -> bool:
        """Needed for from-scratch models alone, which are warmed up on the solutions."""
        return True

    def problems(self) -> ProblemSet:
        """The same problems in every run: training seeds only decide their order."""
        rng = np.random.default_rng(0)
        found: dict[str, Problem] = {}
        while len(found) < self.size:
            letter, *word = (LETTERS[i] for i in rng.integers(len(LETTERS), size=self.word_length + 1))
            prompt = f"{letter} in {''.join(word)}:\n"
            steps = " ".join("1" if each == letter else "0" for each in word)
            answer = str(word.count(letter))
            found[prompt] = Problem(prompt, answer, solution=f"{steps} = {answer}")
        everything = list(found.values())
        return ProblemSet(training=everything[self.heldout :], heldout=everything[: self.heldout])

    def grade(self, responses: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """The answer is what follows the last `=`. Leave this out to have the lab's grader read `####` and boxes."""
        return [_verdict(response, problem) for response, problem in zip(responses, problems, strict=True)]


def _verdict(response: str, problem: Problem) -> Verdict:
    found = response.rpartition("=")[2].strip()
    return judged(found == problem.answer, found) if found.isdigit() else Verdict(Outcome.UNPARSABLE)

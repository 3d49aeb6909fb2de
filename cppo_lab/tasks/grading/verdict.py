"""The outcome of grading a response."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The five outcomes.

    `unparsable`: no marked answer, or one that cannot be read. `rejected`: refused by a guard, or ended its worker
    (memory, a crash). `timed_out`: stopped at the time limit.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class Verdict:
    """`parsed` is the normalised answer found in the response, or None if none could be read.

    `score` is the reward that a reward function of one's own gave, if there is one.
    """

    outcome: Outcome
    parsed: str | None = None
    score: float | None = None

    @property
    def correct(self) -> bool:
        """Whether the answer is correct."""
        return self.outcome is Outcome.CORRECT

    @property
    def reward(self) -> float:
        """The score if there is one, else 1 for a correct answer and 0 for anything else."""
        return float(self.correct) if self.score is None else self.score


def judged(correct: bool, parsed: str) -> Verdict:
    """The verdict on an answer that could be parsed."""
    return Verdict(Outcome.CORRECT if correct else Outcome.WRONG, parsed)


def outcome_counts(verdicts: Iterable[Verdict], prefix: str = "grader/") -> dict[str, float]:
    """The number of verdicts of each kind, as metrics `grader/correct`, `grader/wrong`, …; zeros included."""
    counted = Counter(verdict.outcome for verdict in verdicts)
    return {f"{prefix}{outcome.value}": float(counted[outcome]) for outcome in Outcome}

"""Sampled accuracy on the held-out problems of a task, while it is trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cppo_lab.grading.pool import grader
from cppo_lab.grading.verdict import Verdict, outcome_counts
from cppo_lab.policies.loading import Policy
from cppo_lab.rollouts.rollout import RolloutEngine, SamplingSettings
from cppo_lab.streams import Stream, stream_seed
from cppo_lab.tasks.problem import Problem

# Every policy is evaluated with the same uniform numbers, so that differences between policies are less noisy.
_EVALUATION_SEED = 0


@dataclass(frozen=True)
class Graded:
    """One problem with its graded response."""

    problem: Problem
    completion: str
    verdict: Verdict
    length: int
    finished: bool


@dataclass(frozen=True)
class Evaluation:
    """Graded responses, one per problem."""

    graded: Sequence[Graded]

    def _mean(self, values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else math.nan

    @property
    def accuracy(self) -> float:
        """Share of correct responses."""
        return self._mean([g.verdict.reward for g in self.graded])

    @property
    def stderr(self) -> float:
        """Standard error of the accuracy over problems, sample deviation / sqrt(n)."""
        n = len(self.graded)
        return math.sqrt(self.accuracy * (1 - self.accuracy) / (n - 1)) if n > 1 else math.nan

    def metrics(self, name: str) -> dict[str, float]:
        """The figures that a run logs, under `eval/NAME/`."""
        return {
            f"eval/{name}/accuracy": self.accuracy,
            f"eval/{name}/stderr": self.stderr,
            f"eval/{name}/unparsed_share": self._mean([float(g.verdict.parsed is None) for g in self.graded]),
            f"eval/{name}/length_mean": self._mean([float(g.length) for g in self.graded]),
            f"eval/{name}/truncated_share": self._mean([float(not g.finished) for g in self.graded]),
            **outcome_counts((g.verdict for g in self.graded), f"eval/{name}/grader/"),
        }


def evaluate(
    engine: RolloutEngine,
    policy: Policy,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
) -> Evaluation:
    """Sample one response to each problem with the engine's weights, and grade it.

    A problem's draws depend on its place among the problems alone, not on its batch.
    """
    settings = SamplingSettings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        row_seeds=tuple(
            stream_seed(_EVALUATION_SEED, Stream.EVALUATION, number) for number in range(len(problems))
        ),
    )
    rollout = engine.sample([policy.prompt_ids(problem.prompt) for problem in problems], settings)
    texts = rollout.texts(policy.tokenizer)
    verdicts = grader().grade(texts, [problem.answer for problem in problems])
    rows = zip(problems, texts, verdicts, rollout.lengths.tolist(), rollout.finished.tolist(), strict=True)
    return Evaluation([Graded(*row) for row in rows])

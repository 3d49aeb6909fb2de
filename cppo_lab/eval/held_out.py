"""Sampled accuracy on a task's held-out problems during training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cppo_lab.models.loading import Policy
from cppo_lab.rng import evaluation_seed
from cppo_lab.rollouts.rollout import OnTokens, RolloutEngine, SamplingSettings
from cppo_lab.tasks.grading.verdict import Verdict, outcome_counts
from cppo_lab.tasks.problem import Grade, Problem, grade_responses

# The same uniform numbers for every policy make differences between policies less noisy.
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
    """Graded responses; the `samples` of one problem are adjacent."""

    graded: Sequence[Graded]
    samples: int = 1

    def _mean(self, values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else math.nan

    @property
    def benchmarks(self) -> Mapping[str, Evaluation]:
        """The evaluation of each benchmark, if the problems name any."""
        parts: dict[str, list[Graded]] = {}
        for graded in self.graded:
            if graded.problem.benchmark is not None:
                parts.setdefault(graded.problem.benchmark, []).append(graded)
        return {name: Evaluation(graded, self.samples) for name, graded in parts.items()}

    @property
    def accuracy(self) -> float:
        """Share of correct responses (avg@k for k samples); with several benchmarks, the mean of theirs."""
        parts = list(self.benchmarks.values())
        if len(parts) > 1:
            return self._mean([part.accuracy for part in parts])
        return self._mean([float(g.verdict.correct) for g in self.graded])

    @property
    def stderr(self) -> float:
        """Standard error of the accuracy over problems: standard deviation of their shares / sqrt(n)."""
        parts = list(self.benchmarks.values())
        if len(parts) > 1:
            return math.sqrt(sum(part.stderr**2 for part in parts)) / len(parts)
        n = len(self.graded) // self.samples
        if n < 2:
            return math.nan
        if self.samples == 1:
            return math.sqrt(self.accuracy * (1 - self.accuracy) / (n - 1))
        correct = [float(g.verdict.correct) for g in self.graded]
        shares = [self._mean(correct[i : i + self.samples]) for i in range(0, len(correct), self.samples)]
        return statistics.stdev(shares) / math.sqrt(n)

    def metrics(self, name: str) -> dict[str, float]:
        """The metrics that a run logs under `eval/NAME/`, and those of each benchmark under its name."""
        figures = {
            f"eval/{name}/accuracy": self.accuracy,
            f"eval/{name}/stderr": self.stderr,
            f"eval/{name}/unparsed_share": self._mean([float(g.verdict.parsed is None) for g in self.graded]),
            f"eval/{name}/length_mean": self._mean([float(g.length) for g in self.graded]),
            f"eval/{name}/truncated_share": self._mean([float(not g.finished) for g in self.graded]),
            **outcome_counts((g.verdict for g in self.graded), f"eval/{name}/grader/"),
        }
        for benchmark, part in self.benchmarks.items():
            figures |= {
                f"eval/{benchmark}/accuracy": part.accuracy,
                f"eval/{benchmark}/stderr": part.stderr,
            }
        return figures


def evaluate(
    engine: RolloutEngine,
    policy: Policy,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    samples: int = 1,
    grade: Grade = grade_responses,
    on_tokens: OnTokens | None = None,
    greedy: bool = False,
) -> Evaluation:
    """Sample `samples` responses to each problem with the engine's weights, or take the likeliest tokens; grade them.

    A response's draws depend only on the index of its problem and its own index, not on its batch; the first sample
    is the one that would be drawn with `samples` = 1.
    """
    settings = SamplingSettings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        greedy=greedy,
        stop_tokens=policy.stop_tokens,
        row_seeds=tuple(
            evaluation_seed(_EVALUATION_SEED, number, sample)
            for number in range(len(problems))
            for sample in range(samples)
        ),
        on_tokens=on_tokens,
    )
    prompts = [policy.problem_ids(problem) for problem in problems]
    rollout = engine.sample([prompt for prompt in prompts for _ in range(samples)], settings)
    texts = rollout.texts(policy.tokenizer)
    asked = [problem for problem in problems for _ in range(samples)]
    verdicts = grade(texts, asked)
    rows = zip(asked, texts, verdicts, rollout.lengths.tolist(), rollout.finished.tolist(), strict=True)
    return Evaluation([Graded(*row) for row in rows], samples)

"""Sampled accuracy on a set of problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cppo_lab.policies.loading import Policy
from cppo_lab.rollouts.rollout import RolloutEngine, SamplingSettings
from cppo_lab.streams import Stream, stream_seed
from cppo_lab.tasks.grading import Verdict
from cppo_lab.tasks.problem import Problem, Task

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
        }


def evaluate(
    engine: RolloutEngine,
    policy: Policy,
    task: Task,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    greedy: bool = False,
    context: int | None = None,
    numbers: Sequence[int] | None = None,
) -> Evaluation:
    """Sample one response to each problem with the engine's weights, and grade it.

    Prompts longer than `context` - `max_new_tokens` tokens lose their beginning. `numbers` are the problems' places
    in their data set (0, 1, … by default): a problem's draws depend on its number alone, not on its batch.
    """
    prompts = [policy.prompt_ids(problem.prompt) for problem in problems]
    if context is not None:
        prompts = [ids[-max(1, context - max_new_tokens) :] for ids in prompts]
    settings = SamplingSettings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        greedy=greedy,
        row_seeds=tuple(
            stream_seed(_EVALUATION_SEED, Stream.EVALUATION, number)
            for number in (range(len(problems)) if numbers is None else numbers)
        ),
    )
    rollout = engine.sample(prompts, settings)
    texts = rollout.texts(policy.tokenizer)
    lengths, finished = rollout.lengths.tolist(), rollout.finished.tolist()
    return Evaluation(
        [
            Graded(problem, text, task.grade(text, problem), length, done)
            for problem, text, length, done in zip(problems, texts, lengths, finished, strict=True)
        ]
    )

"""From scored responses to the metrics of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cppo_lab.eval.protocols import Prompt, Score
from cppo_lab.eval.statistics import (
    bootstrap,
    effective_size,
    maj_at,
    mean_stderr,
    pass_at,
    powers_of_two,
    wilson,
)
from cppo_lab.eval.text_engine import Response
from cppo_lab.tasks.benchmarks import Question
from cppo_lab.tasks.grading.verdict import Outcome

TRUNCATED_WARNING = 0.02
"""Above this share of responses at the length limit, a warning says so."""


@dataclass(frozen=True)
class Scored:
    """All responses of an evaluation, k per problem, with their scores by metric."""

    questions: Sequence[Question]
    prompts: Sequence[Prompt]
    responses: Sequence[Sequence[Response]]
    scores: Sequence[Sequence[dict[str, Score]]]

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics, the main one first."""
        return list(self.scores[0][0])

    def correct(self, metric: str) -> NDArray[np.bool_]:
        """Which responses are correct, bool [problems, k]."""
        return np.array([[score[metric].correct for score in row] for row in self.scores], dtype=bool)

    def extracted(self, metric: str) -> list[list[str | None]]:
        """The extracted answers, by problem and sample."""
        return [[score[metric].extracted for score in row] for row in self.scores]

    def outcomes(self, metric: str) -> dict[str, int]:
        """The number of verdicts of each kind."""
        counted = Counter(score[metric].outcome for row in self.scores for score in row)
        return {outcome.value: counted[outcome] for outcome in Outcome}


def metric_results(scored: Scored, metric: str) -> dict[str, Any]:
    """Accuracy by one metric over k samples, with its uncertainty clustered by problem.

    For k = 1, `stderr` is that of lm-evaluation-harness. pass@k and maj@k are there for k > 1.
    """
    correct = scored.correct(metric)
    means = correct.mean(axis=1)
    samples = correct.shape[1]
    accuracy = float(correct.mean())
    found: dict[str, Any] = {
        "accuracy": accuracy,
        "correct": int(correct.sum()),
        "stderr": mean_stderr(means),
        "wilson_95": wilson(accuracy, effective_size(correct)),
        "bootstrap_95": bootstrap(means),
        "verdicts": scored.outcomes(metric),
    }
    if samples > 1:
        found |= {
            f"avg_at_{samples}": accuracy,
            "pass_at": {str(k): pass_at(correct, k) for k in powers_of_two(samples)},
            f"maj_at_{samples}": maj_at(correct, scored.extracted(metric)),
        }
    return found


def summary(scored: Scored) -> dict[str, Any]:
    """The results by every metric, and statistics of the responses that no metric affects."""
    responses = [response for row in scored.responses for response in row]
    lengths = np.array([response.tokens for response in responses])
    truncated = float(np.mean([not response.finished for response in responses]))
    by_metric = {metric: metric_results(scored, metric) for metric in scored.metrics}
    verdicts = by_metric[scored.metrics[0]]["verdicts"]
    unparsed = sum(verdicts[outcome] for outcome in ("unparsable", "rejected", "timed_out"))
    return {
        "n": len(scored.questions),
        "samples_per_problem": len(scored.responses[0]),
        "metrics": by_metric,
        "unparsed_share": unparsed / len(responses),
        "truncated_share": truncated,
        "length_mean": float(lengths.mean()),
        "length_max": int(lengths.max()),
        "tokens": int(lengths.sum()),
    }


def mlflow_metrics(task: str, result: dict[str, Any]) -> dict[str, float]:
    """The results under names that MLflow accepts: `eval/gsm8k/strict-match/accuracy`, `eval/aime24/avg_at_16`."""
    found: dict[str, float] = {}
    names = list(result["metrics"])
    for metric in names:
        prefix = f"eval/{task}/" + ("" if len(names) == 1 else f"{metric}/")
        for key, value in result["metrics"][metric].items():
            if key == "pass_at":
                found |= {f"{prefix}pass_at_{k}": share for k, share in value.items()}
            elif key == "verdicts":
                found |= {f"{prefix}grader/{outcome}": float(count) for outcome, count in value.items()}
            elif key.endswith("_95"):
                found |= {f"{prefix}{key}_low": value[0], f"{prefix}{key}_high": value[1]}
            elif value is not None:
                found[f"{prefix}{key}"] = float(value)
    for key in ("unparsed_share", "truncated_share", "length_mean"):
        found[f"eval/{task}/{key}"] = float(result[key])
    return found


def problem_rows(scored: Scored) -> list[dict[str, Any]]:
    """One row per response: the problem, the completion, and each metric's verdict."""
    leading = scored.metrics[0]
    return [
        {
            "id": number,
            "sample": sample,
            "question": question.question,
            "prompt": prompt.text,
            "completion": response.text,
            "answer": question.answer,
            "parsed": scores[leading].extracted,
            "correct": scores[leading].correct,
            "verdicts": {metric: score.outcome.value for metric, score in scores.items()},
            "extracted": {metric: score.extracted for metric, score in scores.items()},
            "length": response.tokens,
            "finish": "stop" if response.finished else "length",
        }
        for number, (question, prompt, responses, all_scores) in enumerate(
            zip(scored.questions, scored.prompts, scored.responses, scored.scores, strict=True)
        )
        for sample, (response, scores) in enumerate(zip(responses, all_scores, strict=True))
    ]

"""Evaluation during training: every problem has draws of its own."""

from __future__ import annotations

from pathlib import Path

from tiny_runs import tiny_config, trainer_for

from cppo_lab.evaluation.held_out import evaluate


def test_different_problems_have_different_draws(output: Path) -> None:
    parts = trainer_for(tiny_config(output)).parts
    problem = parts.task.heldout_problems()[0]
    found = evaluate(parts.judge, parts.policy, [problem] * 16, max_new_tokens=18)
    assert len({graded.completion for graded in found.graded}) > 1


def test_every_verdict_is_counted(output: Path) -> None:
    parts = trainer_for(tiny_config(output)).parts
    problems = list(parts.task.heldout_problems())[:8]
    metrics = evaluate(parts.judge, parts.policy, problems, max_new_tokens=18).metrics("heldout")
    counts = [metrics[f"eval/heldout/grader/{kind}"] for kind in ("correct", "wrong", "unparsable")]
    assert sum(counts) == 8
    assert counts[0] / 8 == metrics["eval/heldout/accuracy"]
    assert metrics["eval/heldout/grader/timed_out"] == 0

"""Evaluation: a problem's draws are its own, whatever it is batched with."""

from __future__ import annotations

from pathlib import Path

from tiny_runs import tiny_config, trainer_for

from cppo_lab.evaluation import evaluate


def test_sampled_responses_do_not_depend_on_the_batch(output: Path) -> None:
    parts = trainer_for(tiny_config(output)).parts
    problems = list(parts.task.heldout_problems())[:24]

    def responses(numbers: list[int]) -> dict[int, str]:
        found = evaluate(
            parts.judge,
            parts.policy,
            parts.task,
            [problems[n] for n in numbers],
            max_new_tokens=18,
            numbers=numbers,
        )
        return {n: graded.completion for n, graded in zip(numbers, found.graded, strict=True)}

    whole = responses(list(range(24)))
    halves = responses(list(range(23, 11, -1))) | responses(list(range(12)))
    assert halves == whole


def test_different_problems_have_different_draws(output: Path) -> None:
    parts = trainer_for(tiny_config(output)).parts
    problem = parts.task.heldout_problems()[0]
    found = evaluate(parts.judge, parts.policy, parts.task, [problem] * 16, max_new_tokens=18)
    assert len({graded.completion for graded in found.graded}) > 1

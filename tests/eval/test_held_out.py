"""Evaluation during training: every problem has draws of its own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny_runs import loop_for, tiny_config

from cppo_lab.eval.held_out import Evaluation, Graded, evaluate
from cppo_lab.tasks.grading.verdict import judged
from cppo_lab.tasks.problem import Problem


def test_different_problems_have_different_draws(output: Path) -> None:
    held_out = loop_for(tiny_config(output)).held_out
    problem = held_out.problems[0]
    found = evaluate(held_out.engine, held_out.policy, [problem] * 16, max_new_tokens=18)
    assert len({graded.completion for graded in found.graded}) > 1


def test_every_verdict_is_counted(output: Path) -> None:
    held_out = loop_for(tiny_config(output)).held_out
    problems = list(held_out.problems)[:8]
    metrics = evaluate(held_out.engine, held_out.policy, problems, max_new_tokens=18).metrics("heldout")
    counts = [metrics[f"eval/heldout/grader/{kind}"] for kind in ("correct", "wrong", "unparsable")]
    assert sum(counts) == 8
    assert counts[0] / 8 == metrics["eval/heldout/accuracy"]
    assert metrics["eval/heldout/grader/timed_out"] == 0


def test_the_first_of_several_samples_is_the_one_that_is_drawn_alone(output: Path) -> None:
    held_out = loop_for(tiny_config(output)).held_out
    problems = list(held_out.problems)[:6]
    alone = evaluate(held_out.engine, held_out.policy, problems, max_new_tokens=18)
    several = evaluate(held_out.engine, held_out.policy, problems, max_new_tokens=18, samples=3)
    assert [g.completion for g in several.graded[::3]] == [g.completion for g in alone.graded]
    assert [g.problem for g in several.graded] == [problem for problem in problems for _ in range(3)]
    assert any(a.completion != b.completion for a, b in zip(several.graded, several.graded[1:], strict=False))


def test_a_small_nucleus_leaves_the_likeliest_token_alone(output: Path) -> None:
    held_out = loop_for(tiny_config(output)).held_out
    problem = held_out.problems[0]
    found = evaluate(held_out.engine, held_out.policy, [problem], max_new_tokens=18, top_p=1e-6, samples=8)
    assert len({graded.completion for graded in found.graded}) == 1


def test_training_and_held_out_responses_end_where_the_model_says(output: Path) -> None:
    """Every token ends a response: `generation_config.json` lists all but the tokenizer's own."""
    loop = loop_for(tiny_config(output))
    network = loop.held_out.policy.network
    assert loop.held_out.policy.stop_tokens == ()
    network.generation_config.eos_token_id = list(range(network.config.vocab_size))
    assert len(loop.held_out.policy.stop_tokens) == network.config.vocab_size - 1
    experience = loop.rollouts.collect(0, 0)
    assert experience.rollout.response_mask.sum(-1).eq(1).all()
    assert experience.rollout.finished.all()
    problems = list(loop.held_out.problems)[:4]
    found = evaluate(loop.held_out.engine, loop.held_out.policy, problems, max_new_tokens=9)
    assert [(graded.length, graded.finished) for graded in found.graded] == [(1, True)] * 4


def answers(benchmark: str | None, *rights: tuple[bool, ...]) -> list[Graded]:
    """Graded responses, a tuple of verdicts per problem."""
    return [
        Graded(Problem("q", "1", benchmark=benchmark), "", judged(right, "1"), 1, True)
        for problem in rights
        for right in problem
    ]


def test_several_samples_give_the_mean_of_the_problems_shares_and_its_error() -> None:
    found = Evaluation(answers(None, (True, True), (True, False), (False, False)), samples=2)
    assert found.accuracy == pytest.approx(0.5)
    assert found.stderr == pytest.approx(0.5 / math.sqrt(3))
    assert set(found.metrics("heldout")) == set(Evaluation(answers(None, (True,))).metrics("heldout"))


def test_the_score_is_the_mean_over_benchmarks_whatever_their_sizes() -> None:
    large = answers("aime24", (True, True), (True, False), (False, False), (False, True))
    small = answers("aime25", (False, False), (True, False))
    metrics = Evaluation([*large, *small], samples=2).metrics("heldout")
    assert (metrics["eval/aime24/accuracy"], metrics["eval/aime25/accuracy"]) == (0.5, 0.25)
    assert metrics["eval/heldout/accuracy"] == pytest.approx(0.375)
    errors = metrics["eval/aime24/stderr"], metrics["eval/aime25/stderr"]
    assert metrics["eval/heldout/stderr"] == pytest.approx(math.hypot(*errors) / 2)

"""The embedded word problems, checked against an evaluation of their prompts written independently."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lab.errors import UserError
from cppo_lab.tasks.chain import VOCABULARY, ChainConfig, ChainTask, draw_problem
from cppo_lab.tasks.grading.answers import grade

GAIN = {"finds", "buys", "wins", "gets"}
LOSS = {"loses", "sells", "eats", "gives"}


def values_of(prompt: str) -> list[int]:
    """Start value and the value after each change, read from the prompt's English alone."""
    match = re.fullmatch(r"(\w+) has (\d+) (\w+)(.*)\. how many\?\n", prompt)
    assert match, prompt
    values = [int(match.group(2))]
    for change in filter(None, match.group(4).split(", ")):
        verb, _, rest = change.partition(" ")
        if verb == "doubles":
            values.append(values[-1] * 2)
        elif verb == "triples":
            values.append(values[-1] * 3)
        elif verb in GAIN:
            values.append(values[-1] + int(rest))
        else:
            assert verb in LOSS, change
            values.append(values[-1] - int(rest))
    return values


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 30), multiply=st.floats(0, 1))
def test_answer_matches_the_prompt_and_all_values_stay_in_range(
    seed: int, steps: int, multiply: float
) -> None:
    problem = draw_problem(np.random.default_rng(seed), steps, multiply)
    values = values_of(problem.prompt)
    assert len(values) == steps + 1
    assert problem.answer == str(values[-1])
    assert all(0 <= value <= 99 for value in values)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 12))
def test_solution_writes_each_value_and_is_graded_correct(seed: int, steps: int) -> None:
    problem = draw_problem(np.random.default_rng(seed), steps)
    values = values_of(problem.prompt)
    equations = re.findall(r"<<(\d+)([-+*])(\d+)=(\d+)>>", problem.solution)
    assert [int(left) for left, *_ in equations] == values[:-1]
    assert [int(result) for *_, result in equations] == values[1:]
    for left, operation, right, result in equations:
        expected = {
            "+": int(left) + int(right),
            "-": int(left) - int(right),
            "*": int(left) * int(right),
        }[operation]
        assert int(result) == expected
    verdict = grade(problem.solution, problem.answer)
    assert verdict.correct
    assert verdict.parsed == problem.answer


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), steps=st.integers(2, 12))
def test_corruption_changes_the_solution_but_not_prompt_or_answer(seed: int, steps: int) -> None:
    problem = draw_problem(np.random.default_rng(seed), steps, corruption=1.0)
    assert problem.answer == str(values_of(problem.prompt)[-1])
    equations = re.findall(r"<<(\d+)([-+*])(\d+)=(\d+)>>", problem.solution)
    wrong = [
        int(result) != {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[operation]
        for a, operation, b, result in equations
    ]
    assert all(wrong)
    assert [int(result) for *_, result in equations[:-1]] == [int(a) for a, *_ in equations[1:]], (
        "each step goes on from the wrong value before it"
    )


def test_share_of_corrupted_steps_is_the_configured_one() -> None:
    rng = np.random.default_rng(0)
    wrong = total = 0
    for _ in range(800):
        for a, operation, b, result in re.findall(
            r"<<(\d+)([-+*])(\d+)=(\d+)>>", draw_problem(rng, 3, corruption=0.12).solution
        ):
            right = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[operation]
            wrong, total = wrong + (int(result) != right), total + 1
    # 2,400 steps: the standard error is below 0.7 points.
    assert wrong / total == pytest.approx(0.12, abs=0.03)


def test_heldout_set_is_fixed_unique_and_of_the_configured_size() -> None:
    first, again = (ChainTask(steps=4, heldout=1024).heldout_problems() for _ in range(2))
    assert list(first) == list(again)
    assert len(first) == 1024
    assert len({problem.prompt for problem in first}) == 1024
    assert all(problem.answer == str(values_of(problem.prompt)[-1]) for problem in first)


def test_smaller_heldout_set_is_the_beginning_of_the_larger_one() -> None:
    small, large = (ChainTask(steps=4, heldout=n).heldout_problems() for n in (64, 256))
    assert list(large[:64]) == list(small)


@pytest.mark.parametrize("steps", [1, 4])
def test_training_problems_are_never_held_out(steps: int) -> None:
    # With one step the held-out set covers a good part of all problems, so that refusal has work to do.
    task = ChainTask(steps=steps, heldout=1024)
    heldout = {problem.prompt for problem in task.heldout_problems()}
    seen = {p.prompt for step in range(20) for p in task.training_problems(step, 500, seed=step % 3)}
    assert not seen & heldout
    assert all(len(values_of(prompt)) == steps + 1 for prompt in list(seen)[:100])


def test_warmup_problems_are_never_held_out_and_cover_all_lengths() -> None:
    task = ChainTask(steps=2, heldout=1024)
    heldout = {problem.prompt for problem in task.heldout_problems()}
    rng = np.random.default_rng(3)
    lengths = set()
    for _ in range(60):
        batch = task.warmup_problems(rng, 16, longest=5, corruption=0.12)
        assert not {problem.prompt for problem in batch} & heldout
        inside = {len(values_of(problem.prompt)) - 1 for problem in batch}
        assert len(inside) == 1, "a batch has one length"
        lengths |= inside
    assert lengths == {1, 2, 3, 4, 5}


def test_training_stream_is_a_function_of_step_and_seed() -> None:
    first, second = (ChainTask(steps=4, heldout=64) for _ in range(2))
    later = first.training_problems(7, 8, seed=5)
    assert second.training_problems(7, 8, seed=5) == later, "no earlier call is needed"
    assert first.training_problems(7, 8, seed=6) != later
    assert first.training_problems(8, 8, seed=5) != later


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 12), corruption=st.sampled_from([0.0, 0.5]))
def test_vocabulary_covers_every_text(seed: int, steps: int, corruption: float) -> None:
    problem = draw_problem(np.random.default_rng(seed), steps, corruption=corruption)
    pieces = sorted(map(re.escape, VOCABULARY), key=len, reverse=True)
    assert re.fullmatch(f"(?:{'|'.join(pieces)})*", problem.prompt + problem.solution)


def test_difficulty_changes_the_heldout_set() -> None:
    easy, hard = (ChainTask(steps=steps, heldout=64).heldout_problems() for steps in (2, 6))
    assert {len(values_of(p.prompt)) for p in easy} == {3}
    assert {len(values_of(p.prompt)) for p in hard} == {7}


def test_more_held_out_problems_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"task\.heldout=4000: too many for task\.steps=1"):
        ChainTask(steps=1, heldout=4000, multiply_probability=1.0).heldout_problems()


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 12])
def test_overlong_penalty_never_reaches_a_correct_solution(steps: int) -> None:
    from cppo_lab.models.tokenizers import vocabulary_tokenizer

    limit = ChainConfig(
        kind="chain", steps=steps, heldout=16, multiply_probability=0.15, max_response_tokens=None
    ).response_limit
    tokenizer = vocabulary_tokenizer(VOCABULARY)
    task = ChainTask(steps=steps, heldout=16)
    lengths = [
        len(tokenizer(p.solution, add_special_tokens=False).input_ids) + 1
        for p in task.training_problems(0, 500, 0)
    ]
    assert max(lengths) <= 0.8 * limit

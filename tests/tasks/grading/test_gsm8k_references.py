"""GSM8K's own answers: correct against themselves in any wording, and against others only by coincidence."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cppo_lab.tasks.grading.answers import grade
from cppo_lab.tasks.grading.pool import Grader
from cppo_lab.tasks.grading.verdict import Outcome

UNITS = ("dollars", "eggs per day", "cm", "km/h", "square feet", "years old", "people's", "pounds of flour")


def _with_commas(number: str) -> str:
    return f"{int(number):,}"


RESTATEMENTS: dict[str, Callable[[str], str]] = {
    "marked": lambda number: f"#### {number}",
    "marked closely": lambda number: f"####{number}",
    "boxed": lambda number: rf"Thus the answer is $\boxed{{{number}}}$.",
    "boxed text": lambda number: rf"\boxed{{\text{{{number}}}}}",
    "boxed dollars": lambda number: rf"\boxed{{\${number}}}",
    "marked dollars": lambda number: f"#### ${number}",
    "mathematics": lambda number: f"#### ${number}$",
    "thousands": lambda number: f"#### {_with_commas(number)}",
    "thousands in LaTeX": lambda number: rf"\boxed{{{_with_commas(number).replace(',', '{,}')}}}",
    "thousands of dollars": lambda number: f"#### ${_with_commas(number)}.00",
    "period": lambda number: f"#### {number}.",
    "boxed period": lambda number: rf"\boxed{{{number}.}}",
    "decimals": lambda number: f"#### {number}.00",
    "zeros before": lambda number: f"#### {'-' * number.startswith('-')}000{number.lstrip('-')}",
    "after another": lambda number: f"#### 123456\nNo:\n#### {number}",
    **{f"in {unit}": (lambda number, unit=unit: f"#### {number} {unit}") for unit in UNITS},
    **{
        f"in LaTeX {unit}": (lambda number, unit=unit: rf"\boxed{{{number}\text{{ {unit}}}}}")
        for unit in UNITS
    },
}


@pytest.fixture(scope="module")
def solutions(shared_data: Path) -> list[str]:
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").split("\n")
    found = [json.loads(line)["answer"] for line in lines if line.strip()]
    assert len(found) == 1_319
    return found


@pytest.fixture(scope="module")
def numbers(solutions: list[str]) -> list[str]:
    """Read without the lab's code."""
    found = [re.sub(r"[,$]", "", solution.split("####")[-1].strip()) for solution in solutions]
    assert all(re.fullmatch(r"-?\d+", number) for number in found)
    return found


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(symbolic=False, limit_s=10.0) as grader:
        yield grader


def _correct(completions: Sequence[str], answers: Sequence[str]) -> int:
    return sum(grade(*pair).correct for pair in zip(completions, answers, strict=True))


def test_all_reference_solutions_are_correct(
    grader: Grader, solutions: list[str], numbers: list[str]
) -> None:
    assert all(verdict.correct for verdict in grader.grade(solutions, numbers))
    own = [solution.rpartition("####")[2].strip() for solution in solutions]
    assert _correct(solutions, own) == 1_319
    assert _correct(solutions, numbers) == 1_319


@pytest.mark.parametrize("restated", RESTATEMENTS.values(), ids=RESTATEMENTS)
def test_all_restatements_are_correct(numbers: list[str], restated: Callable[[str], str]) -> None:
    negative = [str(-int(number)) for number in numbers]
    assert _correct([restated(number) for number in numbers], numbers) == 1_319
    assert _correct([restated(number) for number in negative], negative) == 1_319


@pytest.mark.parametrize("restated", RESTATEMENTS.values(), ids=RESTATEMENTS)
def test_all_restatements_of_other_numbers_are_wrong(
    numbers: list[str], restated: Callable[[str], str]
) -> None:
    others = [str(-int(number) if int(number) else 1) for number in numbers]
    next_ones = [str(int(number) + 1) for number in numbers]
    assert _correct([restated(number) for number in numbers], others) == 0
    assert _correct([restated(number) for number in numbers], next_ones) == 0


@pytest.mark.parametrize("seed", range(5))
def test_permuted_answers_are_correct_as_often_as_numbers_coincide(
    grader: Grader, solutions: list[str], numbers: list[str], seed: int
) -> None:
    order = list(range(len(numbers)))
    random.Random(seed).shuffle(order)
    # Each problem gets the solution of the next one in a random circle, so none its own.
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    verdicts = grader.grade([solutions[following[place]] for place in range(len(numbers))], numbers)
    coincide = [int(numbers[following[place]]) == int(number) for place, number in enumerate(numbers)]
    assert [verdict.correct for verdict in verdicts] == coincide
    assert {verdict.outcome for verdict in verdicts} == {Outcome.CORRECT, Outcome.WRONG}
    assert 0 < sum(coincide) < 0.05 * len(numbers)

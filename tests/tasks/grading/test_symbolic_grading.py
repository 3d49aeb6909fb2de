"""Answers that are not plain numbers: which equal a reference, and which only math-verify takes for equal."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lab.tasks.benchmarks import Question, benchmark, load_questions
from cppo_lab.tasks.grading.answers import grade
from cppo_lab.tasks.grading.numbers import parse_number
from cppo_lab.tasks.grading.pool import Grader
from cppo_lab.tasks.grading.symbolic import grade_expression
from cppo_lab.tasks.grading.verdict import Outcome

# reference: (right answers, wrong answers)
TABLE: dict[str, tuple[list[str], list[str]]] = {
    r"\frac{1}{2}": (
        [
            "0.5",
            "0.50",
            "1/2",
            r"\dfrac12",
            r"\frac{2}{4}",
            r"x=\frac{1}{2}",
            r"50\%",
            "2^{-1}",
            r"$\frac{1}{2}$",
        ],
        [
            "0.49",
            "0.500001",
            "5",
            "50",
            r"\frac{1}{3}",
            r"-\frac{1}{2}",
            r"\pm\frac{1}{2}",
            r"\frac{1}{2}x",
            r"\frac{1}{2}!",
            r"\frac{1}{2}\%",
            r"\frac{1}{2} \text{ or } \frac{1}{3}",
            r"\frac{1}{2}, \frac{1}{3}",
            r"\frac{1}{2} = \frac{1}{3}",
            r"\neq \frac{1}{2}",
            r"x \ne \frac{1}{2}",
            r"x < \frac{1}{2}",
            r"\frac{1}{0}",
            r"\frac{0}{0}",
            r"\infty",
            "the answer is correct",
        ],
    ),
    r"\frac{1}{3}": (["0.333333", "1/3"], ["0.33", "0.3333"]),
    r"1-\frac{1}{e}": (
        [r"1-\frac1e", "1-e^{-1}", r"1-\frac{1}{\mathrm{e}}"],
        ["1+1/e", r"1+\frac{1}{e}", r"1+\frac{1}{\mathrm{e}}"],
    ),
    r"1-\frac{1}{\mathrm{e}}": (["1-1/e"], ["1+1/e", r"1+\frac{1}{\mathrm{e}}", "1"]),
    r"\frac{1}{2004!}": ([r"\frac{1}{2004!}"], [r"\frac{1}{2006!}", "0"]),
    r"\frac{1}{2^{99}}": (["2^{-99}"], [r"\frac{1}{2^{98}}", "0", r"\frac{1}{2^{99}+1}"]),
    r"\sqrt{2}": (
        ["1.414214", "2^{1/2}", r"\sqrt2"],
        ["1.41", "1.4142", r"-\sqrt{2}", "2", r"\infty", r"-\infty"],
    ),
    r"\pi": ([r"\pi", "3.141593"], ["3.14", r"\frac{22}{7}", r"\infty", r"\frac{1}{0}", r"\tan 90^\circ"]),
    r"\infty": ([r"\infty", r"+\infty"], [r"-\infty", "1", r"\pi", r"\frac{1}{0}"]),
    "(3,4]": (
        ["(3, 4]", r"\left(3,4\right]"],
        ["[3,4]", "(3,4)", "[3,4)", r"(3,4]\cup\{5\}", "3,4", "(4,3]"],
    ),
    r"(-\infty,2)\cup(3,\infty)": (
        [r"(3,\infty)\cup(-\infty,2)"],
        [r"(-\infty,2]\cup(3,\infty)", r"(-\infty,\infty)"],
    ),
    "x^2+1": (["1+x^2", "x^{2}+1", "y=x^2+1"], ["x^2", "x^2-1", "y^2+1", "x^2+1.0001"]),
    r"\{1,2,3\}": ([r"\{3,2,1\}", "1,2,3"], [r"\{1,2\}", r"\{1,2,4\}", r"\{1,2,3,4\}"]),
    "(1,2)": (["(1,2)", r"\left(1,2\right)", "(1.0, 2)"], ["(2,1)", "(1,3)", "(1,2,3)", "1"]),
    r"\begin{pmatrix}1\\2\end{pmatrix}": (
        [r"\begin{pmatrix} 1 \\ 2.0 \end{pmatrix}"],
        [r"\begin{pmatrix}2\\1\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"],
    ),
    "x \\ge 2": ([r"x \geq 2", r"[2,\infty)", r"2 \le x"], ["x > 2", r"x \le 2", r"x \ne 2"]),
    "3x+2y=6": (["6=3x+2y", "6x+4y=12"], ["3x+2y=7"]),
    r"x \ne 2": ([r"x \neq 2"], []),
    "52_8": (["52_8", "52_{8}", "52"], ["52_9", "53_8", "42"]),
    r"\text{Evelyn}": ([r"\text{Evelyn}", "Evelyn"], [r"\text{Carla}", r"\text{Evelyn or Carla}"]),
    r"90^\circ": (["90", r"90^{\circ}", r"90\text{ degrees}"], ["91", r"\frac{\pi}{2}"]),
    r"10\%": ([r"10\%", "10 percent", "0.1", r"\frac{1}{10}"], ["10", r"1000\%", r"0.1\%"]),
    r"\$18.90": (["18.90", r"\$18.90", "18.9"], ["18.91", r"18.9\%"]),
}
RIGHT = [(answer, gold) for gold, (right, _) in TABLE.items() for answer in [gold, *right]]
WRONG = [(answer, gold) for gold, (_, wrong) in TABLE.items() for answer in wrong]


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_mathematically_equal_answers_are_correct(answer: str, gold: str) -> None:
    assert grade_expression(answer, gold).outcome is Outcome.CORRECT
    assert grade(rf"so it is \boxed{{{answer}}}.", gold).correct


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_unequal_answers_are_never_correct(answer: str, gold: str) -> None:
    assert not grade(rf"so it is \boxed{{{answer}}}.", gold).correct


@pytest.mark.parametrize(
    "completion",
    [
        r"\boxed{5}, \boxed{6}",
        r"\boxed{6} or \boxed{5}",
        r"\boxed{5 or 6}",
        "#### 5 or 6",
        r"\boxed{5, 6}",
        r"\boxed{\{5\}}",
        r"\boxed{x=5}",
        r"\boxed{10/2}",
        r"\boxed{500\%}",
        r"\boxed{5\%}",
        r"\boxed{\neq 5}",
        "6, no 5",
        "5",
    ],
)
def test_numeric_references_are_never_compared_symbolically(completion: str) -> None:
    assert grade(completion, "5").outcome is Outcome.UNPARSABLE


@pytest.mark.parametrize("completion", [r"\boxed{1,8}", "#### 1,8", "17, no 18", "so it is 18"])
def test_a_number_must_be_marked_and_in_one_piece(completion: str) -> None:
    assert grade(completion, "18").outcome is Outcome.UNPARSABLE


def test_listed_boxes_form_one_set() -> None:
    assert grade(r"\boxed{2} and \boxed{1}", r"\{1,2\}").correct
    assert not grade(r"\boxed{\frac{1}{3}} or \boxed{\frac{1}{2}}", r"\frac{1}{2}").correct


def test_text_without_a_mark_is_not_searched_for_an_answer() -> None:
    assert grade(r"it is \frac{1}{2}", r"\frac{1}{2}").outcome is Outcome.UNPARSABLE
    assert grade(r"\boxed{}", r"\frac{1}{2}").outcome is Outcome.UNPARSABLE
    assert grade(r"\boxed{" + "9^" * 5 + "9}", r"\frac{1}{2}").outcome is Outcome.REJECTED


FRACTIONS = st.fractions(min_value=-100, max_value=100, max_denominator=97)


@settings(max_examples=60)
@given(FRACTIONS, FRACTIONS)
def test_fractions_are_equal_when_they_are(first: Fraction, second: Fraction) -> None:
    if second.denominator > 1:
        gold = rf"\frac{{{second.numerator}}}{{{second.denominator}}}"
        for spelling in (
            f"{first.numerator}/{first.denominator}",
            f"{3 * first.numerator}/{3 * first.denominator}",
        ):
            assert grade_expression(spelling, gold).correct == (first == second)
            assert grade_expression(f"{second.numerator}/{second.denominator}", gold).correct


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["", "+1", r"+\pi", r"\sqrt{3}"]))
def test_exact_numbers_with_tiny_differences_are_unequal(first: int, second: int, rest: str) -> None:
    gold = rf"\frac{{1}}{{2^{{{first}}}}}{rest}"
    assert grade_expression(rf"\frac{{1}}{{2^{{{second}}}}}{rest}", gold).correct == (first == second)


@pytest.fixture(scope="module")
def references(shared_data: Path) -> list[Question]:
    return load_questions(benchmark("math500"), str(shared_data / "math500" / "test.jsonl"))


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(symbolic=True, limit_s=10.0) as grader:
        yield grader


def test_all_references_of_math500_equal_themselves(grader: Grader, references: list[Question]) -> None:
    answers = [question.answer for question in references]
    assert len(answers) == 500
    verdicts = grader.grade([rf"so it is $\boxed{{{answer}}}$." for answer in answers], answers)
    assert not [(answer, v) for answer, v in zip(answers, verdicts, strict=True) if not v.correct]


def _is_same_spelling(first: str, second: str) -> bool:
    numbers = parse_number(first), parse_number(second)
    return first == second if None in numbers else numbers[0] == numbers[1]


def test_permuted_references_of_math500_agree_only_by_coincidence(
    grader: Grader, references: list[Question]
) -> None:
    answers = [question.answer for question in references]
    shift = random.Random(0).randrange(1, len(answers))
    others = answers[shift:] + answers[:shift]
    verdicts = grader.grade([rf"\boxed{{{other}}}" for other in others], answers)
    equal = [_is_same_spelling(*pair) for pair in zip(others, answers, strict=True)]
    differing = [
        (other, answer)
        for other, answer, verdict, same in zip(others, answers, verdicts, equal, strict=True)
        if verdict.correct != same
    ]
    assert not differing
    assert sum(equal) < 0.02 * len(answers)

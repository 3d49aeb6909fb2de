"""Grading of numeric answers: what counts as the answer, and when two numbers are one."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppo_lab.grading.extraction import marked_answer
from cppo_lab.grading.numbers import grade_number, parse_number

# (completion, gold, correct, parsed)
TABLE = [
    ("so it is <<9*2=18>>18.\n#### 18", "18", True, "18"),
    ("#### 18", "19", False, "18"),
    ("####18", "18", True, "18"),
    ("#### 18.", "18", True, "18"),
    ("#### 18.00", "18", True, "18"),
    ("#### 18", "18.00", True, "18"),
    ("#### 18.5", "18", False, "18.5"),
    ("#### $18", "18", True, "18"),
    ("#### $1,234", "1234", True, "1234"),
    ("#### 1,234,567.50", "1234567.5", True, "1234567.5"),
    ("#### 1234", "1,234", True, "1234"),
    ("#### 12,34", "1234", False, None),
    ("#### -5", "-5", True, "-5"),
    ("#### 5", "-5", False, "5"),
    ("#### +5", "5", True, "5"),
    ("#### -0", "0", True, "0"),
    ("#### .5", "0.5", True, "0.5"),
    ("#### 007", "7", True, "7"),
    ("#### 5\n#### 6", "6", True, "6"),
    ("#### 5\n#### 6", "5", False, "6"),
    ("#### 5#### 6", "6", True, "6"),
    ("#### 5 #### 6", "5", False, "6"),
    ("#### 18\nand then some more", "18", True, "18"),
    ("#### 18 dollars", "18", True, "18"),
    ("#### 18%", "18", False, None),
    ("#### eighteen", "18", False, None),
    ("#### 9*2", "18", False, None),
    ("#### 1e2", "100", False, None),
    ("#### 18/1", "18", False, None),
    ("#### 5 6", "56", False, None),
    ("#### ", "0", False, None),
    ("####", "0", False, None),
    ("", "0", False, None),
    ("the answer is 18", "18", False, None),
    ("### 18", "18", False, None),
    ("#### NaN", "18", False, None),
    ("#### Infinity", "18", False, None),
    ("#### １８", "18", False, None),
    ("#### ١٨", "18", False, None),
    (r"thus \boxed{18}", "18", True, "18"),
    (r"thus \boxed{-1,800}.", "-1800", True, "-1800"),
    (r"\boxed{17} no, \boxed{18}", "18", True, "18"),
    (r"\boxed{17}" + "\n#### 18", "18", True, "18"),
    ("#### 17\n" + r"\boxed{18}", "18", True, "18"),
    (r"\boxed{", "18", False, None),
    ("#### " + "9" * 33, "9" * 33, True, "9" * 33),
    ("#### " + "9" * 33, "9" * 32 + "8", False, "9" * 33),
]


@pytest.mark.parametrize(("completion", "gold", "correct", "parsed"), TABLE)
def test_marked_answer_is_graded_as_the_table_says(
    completion: str, gold: str, correct: bool, parsed: str | None
) -> None:
    verdict = grade_number(completion, gold)
    assert (verdict.correct, verdict.parsed) == (correct, parsed)
    assert verdict.reward == (1.0 if correct else 0.0)


@pytest.mark.parametrize("digits", [65, 5_000, 1_000_000])
def test_huge_digit_strings_are_no_answer_and_take_no_time(digits: int) -> None:
    started = time.perf_counter()
    verdict = grade_number("#### " + "7" * digits, "7")
    assert not verdict.correct
    assert verdict.parsed is None
    assert time.perf_counter() - started < 1


def test_long_text_full_of_marks_takes_no_time() -> None:
    started = time.perf_counter()
    assert grade_number("#### 1,1," * 30_000 + r"\boxed{" * 10_000 + "\n#### 3", "3").correct
    assert time.perf_counter() - started < 1


def test_gold_that_is_no_number_is_a_data_error() -> None:
    with pytest.raises(ValueError, match="eighteen"):
        grade_number("#### 18", "eighteen")


@given(st.text(max_size=200))
def test_any_text_gets_a_verdict(text: str) -> None:
    verdict = grade_number(text, "18")
    assert verdict.correct == (verdict.parsed == "18")


@given(st.text(max_size=50), st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9)))
def test_every_spelling_of_a_number_is_that_number(before: str, number: Decimal) -> None:
    plain = format(number, "f")
    for spelling in (plain, f"{number:,f}", f" {plain}0 ", f"${plain}"):
        assert parse_number(spelling) == number
        assert grade_number(f"{before}\n#### {spelling}", plain).correct


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_different_integers_are_never_equal(first: int, second: int) -> None:
    assert grade_number(f"#### {first:,}", str(second)).correct == (first == second)


def test_marked_answer_is_none_without_a_mark() -> None:
    assert marked_answer("no mark 18") is None

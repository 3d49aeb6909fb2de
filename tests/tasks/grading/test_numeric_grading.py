"""Grading of numeric answers: what counts as the answer, and when two numbers are equal."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppo_lab.tasks.grading.numbers import grade_number, parse_number, parse_quantity
from cppo_lab.tasks.grading.verdict import Outcome

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
def test_marked_answers_get_the_expected_verdicts(
    completion: str, gold: str, correct: bool, parsed: str | None
) -> None:
    verdict = grade_number(completion, gold)
    assert (verdict.correct, verdict.parsed) == (correct, parsed)
    assert verdict.reward == (1.0 if correct else 0.0)


@pytest.mark.parametrize("digits", [65, 5_000, 1_000_000])
def test_huge_digit_strings_are_refused_quickly(digits: int) -> None:
    started = time.process_time()
    verdict = grade_number("#### " + "7" * digits, "7")
    assert not verdict.correct
    assert verdict.parsed is None
    assert time.process_time() - started < 1


def test_long_text_full_of_marks_is_graded_quickly() -> None:
    started = time.process_time()
    assert grade_number("#### 1,1," * 30_000 + r"\boxed{" * 10_000 + "\n#### 3", "3").correct
    assert time.process_time() - started < 1


def test_non_numeric_reference_is_a_data_error() -> None:
    with pytest.raises(ValueError, match="eighteen"):
        grade_number("#### 18", "eighteen")


@given(st.text(max_size=200))
def test_any_text_gets_a_verdict(text: str) -> None:
    verdict = grade_number(text, "18")
    assert verdict.correct == (verdict.parsed == "18")


@given(st.text(max_size=50), st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9)))
def test_every_spelling_of_a_number_is_parsed_to_it(before: str, number: Decimal) -> None:
    plain = format(number, "f")
    for spelling in (plain, f"{number:,f}", f" {plain}0 ", f"${plain}"):
        assert parse_number(spelling) == number
        assert grade_number(f"{before}\n#### {spelling}", plain).correct


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_different_integers_are_never_equal(first: int, second: int) -> None:
    assert grade_number(f"#### {first:,}", str(second)).correct == (first == second)


QUANTITIES = [
    ("18 dollars per day", "18"),
    (r"18\text{ cm}", "18"),
    (r"18\,\text{cm}", "18"),
    (r"18 \mathrm{~km}", "18"),
    (r"18\text{ cm}^2", "18"),
    (r"18\text{ m}^{3}", "18"),
    ("18 cm²", "18"),
    ("18 km/h", "18"),
    ("18 m/s^2", "18"),
    ("18 square metres.", "18"),
    ("18 a day", "18"),
    ("18 people's", "18"),
    ("18m", "18"),
    ("18 cents", "18"),
    ("18€", "18"),
    ("18 €", "18"),
    ("$18$", "18"),
    (r"\(18\)", "18"),
    (r"\$18", "18"),
    (r"\text{18}", "18"),
    (r"\mathbf{18}", "18"),
    ("1{,}234", "1234"),
    (r"1{,}234{,}567\text{ cm}", "1234567"),
    (r"\$1{,}234.50", "1234.5"),
    (r"10,\!236", "10236"),
    (r"1\,234", "1234"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90"),
    ("90°", "90"),
    ("90 degrees", "90"),
    (r"90^\circ C", "90"),
    ("-18", "-18"),
    ("- 18", "-18"),
    ("-$18", "-18"),
    ("$-18", "-18"),
    ("\u221218", "-18"),
    (r"-18\text{ m}", "-18"),
]

NO_QUANTITIES = [
    *("18%", r"18\%", "18 percent", "18 per cent", r"18\text{ percent}", "18 pct", "18 basis points"),
    *("18 million", r"18\text{ million}", "18k", "18K", "18M", "18B", "18 dozen", "18 hundred", "18 lakh"),
    *(
        "18 tenths",
        "18 half",
        "18 thousandths",
        "18 and a half",
        "18 point five",
        "18 squared",
        "18!",
        "18^2",
    ),
    *("18 or 19", "18 and 19", r"18 \text{ or } 19", "18 not 19", "18 is wrong", "18, 19", "18-20", "18:30"),
    *("18 plus 2", "18 - 2", "18 times 2", r"18 \times 1", r"18 \cdot 1", "18 x 1", "18 mod 20", "18 over 1"),
    *("18x", "18y", "18n", "18i", "18e", r"18\pi", "18 pi", r"\sqrt{324}", r"18\sqrt{1}", "18 x^2"),
    *(
        r"\{18\}",
        "x=18",
        "x = 18",
        "(18)",
        "[18]",
        "36/2",
        "18/1",
        r"\frac{36}{2}",
        r"2\cdot 9",
        "9*2",
        "17+1",
    ),
    *("--18", "-+18", "+-18", "1 8", r"1\ 8", "1~8", "1{,}8", "0x12", "1.8e1", "1_8", "018 019"),
    *("18 hours 30 minutes", "18 dollars and 50 cents", "18 feet 6 inches", "18 m^22", "about 18", "= 18"),
]


@pytest.mark.parametrize(("answer", "number"), QUANTITIES)
def test_quantities_are_parsed_to_their_number(answer: str, number: str) -> None:
    for completion in (f"#### {answer}", rf"so \boxed{{{answer}}}.", rf"so \boxed{{{answer}.}}"):
        verdict = grade_number(completion, number)
        assert (verdict.outcome, verdict.parsed) == (Outcome.CORRECT, number)
    assert not grade_number(f"#### {answer}", "17").correct


@pytest.mark.parametrize("answer", NO_QUANTITIES)
def test_other_text_is_not_a_quantity(answer: str) -> None:
    for completion in (f"#### {answer}", rf"so \boxed{{{answer}}}."):
        for number in ("18", "-18", "17", "19", "1.8", "0.18", "18000000"):
            assert grade_number(completion, number).outcome is Outcome.UNPARSABLE


@pytest.mark.parametrize(
    "answer", [r"\boxed{\{5\}}", r"\boxed{x=5}", r"\boxed{36/2}", r"\boxed{\frac{36}{2}}"]
)
def test_no_expression_is_evaluated(answer: str) -> None:
    assert not grade_number(answer, "5").correct
    assert not grade_number(answer, "18").correct


@pytest.mark.parametrize("answer", ["18" + " " * 200 + "x", "18 " + "very " * 60, "1" * 201])
def test_overlong_answers_are_rejected(answer: str) -> None:
    assert grade_number(rf"\boxed{{{answer}}}", "18").outcome is Outcome.REJECTED


@given(st.integers(-(10**6), 10**6), st.text(alphabet="0123456789,.-+ $\\%{}^/exkM", min_size=1, max_size=8))
def test_text_after_a_number_never_changes_it(number: int, rest: str) -> None:
    verdict = grade_number(rf"#### {number}{rest}", str(number + 1))
    assert not verdict.correct or Decimal((str(number) + rest).replace(",", "").strip(" $.")) == number + 1


@pytest.mark.parametrize("text", ["**18**", "**18** dollars", "**18.**", "$**18**"])
def test_bold_numbers_are_parsed(text: str) -> None:
    assert parse_quantity(text) == 18


def test_a_product_is_not_bold() -> None:
    assert parse_quantity("9**2") is None
    assert parse_quantity("9*2") is None
    assert parse_quantity("2**3**4") is None

"""Which answers are refused before they are parsed, and which must not be."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hostile import FAMILIES
from hypothesis import given
from hypothesis import strategies as st

from cppo_lab.tasks.grading.guards import MAX_CHARACTERS, refusal

ORDINARY = [
    "18",
    "-1,234.50",
    r"\frac{\sqrt{3}}{2}",
    r"\dfrac{1}{1+\dfrac{1}{1+\dfrac{1}{2}}}",
    r"\left(3, \frac{\pi}{2}\right)",
    r"(-\infty, 2] \cup [5, \infty)",
    r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}",
    r"90^\circ",
    r"90^{\circ}",
    r"\sin^2 x + \cos^{2} x",
    "e^{-x^2}",
    "x^{2^n}",
    "2^{2^{n+1}}",
    "a^{b^c}",
    r"e^{i\pi/3}",
    r"2^{1000} - 1",
    r"3^{2018}",
    r"10^{-4}",
    r"(2^{10})^{10}",
    r"\left(\frac{3}{4}\right)^{10}",
    r"x^{\frac{100}{201}}",
    "5!",
    "2016!",
    "(n-1)!",
    r"\frac{(2n)!}{n!(n+1)!}",
    r"\binom{2017}{1008}",
    r"2^{\binom{n}{2}}",
    r"\sum_{k=1}^{n} k^2",
    r"\int_0^1 x^2 dx",
    r"\lim_{x \to 0} \frac{\sin x}{x}",
    "7",
    r"3 \bmod 7",
    r"\{" + ",".join(str(k) for k in range(100)) + r"\}",
    "x^",
    ")^2",
    "^",
    "!",
    "",
]

REFUSED = [
    ("x" * (MAX_CHARACTERS + 1), "too long"),
    ("1\x008", "control characters"),
    ("1\ud8008", "control characters"),
    ("(" * 21 + ")" * 21, "nested too deeply"),
    (r"\frac{1}{2}+" * 21, "nested too deeply"),
    ("7" * 65, "a number of too many digits"),
    ("9^9^9", "a tower of powers"),
    ("9^{9^9}", "a tower of powers"),
    ("9**9**9", "a tower of powers"),
    ("9^(9^9)", "a tower of powers"),
    (r"9^{\left(9^{9}\right)}", "a tower of powers"),
    ("e^{e^{e^{e^3}}}", "a tower of powers"),
    (r"7^{7^{7^7}} \bmod 10", "a tower of powers"),
    (r"\sum_{k=1}^{10^8} 1/k^2", "a tower of powers"),
    ("9^{99999}", "too large an exponent"),
    ("9^ 99999", "too large an exponent"),
    ("2^{-12345}", "too large an exponent"),
    ("10^{1,000,000}", "too large an exponent"),
    ("7^{999 * 999 * 999}", "too large an exponent"),
    (r"9^\frac{99999999}{1}", "too large an exponent"),
    ("((3)^{9999})^{9999}", "too large an exponent"),
    ("((2**999)**999)**999", "too large an exponent"),
    (r"\left(\left(2^{999}\right)^{999}\right)^{999}", "too large an exponent"),
    ("2^{99!}", "too large an exponent"),
    (r"2^{\binom{99}{49}}", "too large an exponent"),
    ("1E+99999", "too large an exponent"),
    ("10000!", "too large a factorial"),
    ("(10^6)!", "too large a factorial"),
    ("((9!)!)!", "too large a factorial"),
    ("3!!", "too large a factorial"),
    ("(50000+50000)!", "too large a factorial"),
    (r"\Gamma(100000000)", "a sum, product or binomial over large numbers"),
    (r"\Gamma(10^8)", "a sum, product or binomial over large numbers"),
    (r"\binom{10^6}{5}", "a sum, product or binomial over large numbers"),
    (r"\binom{1000000}{500000}", "a sum, product or binomial over large numbers"),
    (r"\prod_{k=1}^{999} (k^{19}+1)", "a sum, product or binomial over large numbers"),
    (r"\sum_{k=1}^{99} \sum_{j=1}^{99} \frac{1}{k+j}", "a sum, product or binomial over large numbers"),
    (r"\sin(\cos(" * 7 + "x" + "))" * 7, "too many functions"),
    ("1,2," * 51, "too many elements"),
]


@pytest.mark.parametrize("answer", ORDINARY)
def test_ordinary_answers_pass(answer: str) -> None:
    assert refusal(answer) is None


@pytest.mark.parametrize(("answer", "reason"), REFUSED)
def test_slow_answers_are_refused_with_a_reason(answer: str, reason: str) -> None:
    assert refusal(answer) == reason


def test_the_limit_on_length_can_be_changed() -> None:
    assert refusal("x" * 1_000, longest=1_000) is None
    assert refusal("x" * 1_001, longest=1_000) == "too long"


def test_no_reference_of_math500_is_refused(shared_data: Path) -> None:
    rows = (shared_data / "math500" / "test.jsonl").read_text(encoding="utf-8").split("\n")
    answers = [json.loads(row)["answer"] for row in rows if row]
    assert len(answers) == 500
    assert not [answer for answer in answers if refusal(answer)]


@given(st.text(alphabet="0129xe^*!(){}[]\\,.+- ", max_size=60) | st.text(max_size=200))
def test_any_text_is_accepted_or_refused(text: str) -> None:
    reason = refusal(text)
    assert reason is None or reason


@given(st.integers(2, 9), st.integers(3, 12), st.sampled_from(["^{", "^(", "**(", r"^{\left("]))
def test_no_tower_of_numbers_passes(base: int, height: int, power: str) -> None:
    closing = {"{": "}", "(": ")"}
    closed = r"\right)}" if "left" in power else closing[power[-1]]
    assert refusal(power.join([str(base)] * height) + closed * (height - 1)) is not None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_guards_are_fast_on_hostile_answers(family: object) -> None:
    for number in range(5):
        started = time.perf_counter()
        refusal(family.write(number)[:MAX_CHARACTERS])  # type: ignore[attr-defined]
        assert time.perf_counter() - started < 0.1

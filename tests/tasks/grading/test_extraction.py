"""Finding the answer that a response states."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppo_lab.tasks.grading.answers import AnswerFormat, grade
from cppo_lab.tasks.grading.extraction import marked_answer

TABLE = [
    ("#### 18", "18"),
    ("####18", "18"),
    ("####\t 18 \nmore", "18"),
    ("#######  18", "18"),
    ("### 18", None),
    ("#### 5 #### 6", "6"),
    ("#### 5\n#### ", ""),
    ("", None),
    ("no mark 18", None),
    (r"\boxed{18}", "18"),
    (r"\boxed {18}", "18"),
    (r"\fbox{18}", "18"),
    (r"$\boxed{ 18 }$", "18"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\left\{ x \mid x > 1 \right.}", r"\left\{ x \mid x > 1 \right."),
    (r"\boxed{a}b}", "a"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\boxed{5} no, \boxed{6}", "6"),
    (r"\boxed{5}. Check: \boxed{6}", "6"),
    (r"\boxed{5} \boxed{6}", "6"),
    (r"\boxed{5} and \boxed{6", "5"),
    (r"\boxed{5} and \boxed{6}", "5, 6"),
    (r"\boxed{5}, \boxed{6}", "5, 6"),
    (r"$\boxed{5}$; $\boxed{6}$.", "5, 6"),
    (r"\boxed{4}, \boxed{5}, or \boxed{6}", "4, 5, 6"),
    (r"\boxed{5} \text{ or } \boxed{6}", "5, 6"),
    (r"\boxed{5} and \boxed{5}", "5"),
    (r"\boxed{5}\n\n\boxed{5}", "5"),
    (r"\boxed{5 and \boxed{6}", "6"),
    (r"\boxed{", None),
    (r"\boxed", None),
    ("boxed{5}", None),
    (r"\\boxed{5}", None),
    (r"{\boxed{5}", "5"),
    (r"\boxed{5}} }", "5"),
    (r"\boxed{5}" + "\n#### 6", "6"),
    ("#### 6\n" + r"\boxed{5}", "5"),
    (r"#### \boxed{5}", "5"),
    ("\\boxed{\n5\n}", "5"),
]


@pytest.mark.parametrize(("completion", "answer"), TABLE)
def test_the_last_complete_mark_holds_the_answer(completion: str, answer: str | None) -> None:
    assert marked_answer(completion) == answer


@given(st.text(max_size=200))
def test_text_without_a_mark_has_no_answer(text: str) -> None:
    unmarked = text.replace("#", "").replace("\\", "")
    assert marked_answer(unmarked) is None


LINE = st.text(st.characters(exclude_characters="#\n"), max_size=50)
BALANCED = st.recursive(
    st.text(st.characters(exclude_characters="#{}\\"), max_size=10),
    lambda inner: inner.map(lambda text: "{" + text + "}") | st.tuples(inner, inner).map("".join),
)


@given(st.text(max_size=100), LINE)
def test_what_follows_the_last_mark_is_the_answer(before: str, answer: str) -> None:
    if "\\" not in answer:
        assert marked_answer(f"{before}\n#### {answer}\nmore") == answer.strip()


@given(st.text(st.characters(exclude_characters="\\"), max_size=100), BALANCED)
def test_a_closed_box_at_the_end_is_the_answer(before: str, answer: str) -> None:
    assert marked_answer(rf"{before}\boxed{{{answer}}}") == answer.strip()


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{1}" * 100_000,
        r"\boxed{1}, " * 90_000,
        r"\boxed{" * 100_000,
        r"\boxed{" * 100_000 + "}" * 100_000,
        "{" * 1_000_000,
        "#" * 1_000_000,
        "#### " * 200_000,
        "####" + " " * 1_000_000,
        "\n#### word" * 90_000,
        "#### a word" * 90_000,
        " " * 1_000_000 + "#### word",
        "<answer>" * 120_000,
        "<answer>" + "a" * 1_000_000,
        "</think><think>" * 60_000,
        "\\" * 1_000_000,
    ],
)
def test_a_million_characters_are_searched_quickly(text: str) -> None:
    started = time.process_time()
    marked_answer(text)
    assert time.process_time() - started < 2


ANSWER_LINES = [
    ("so it is 42.\nAnswer: 42", "42"),
    ("Answer: $42$\n", "$42$"),
    ("**Answer:** 42", "42"),
    ("**Answer: 42**", "42"),
    ("The final answer : -7.", "-7."),
    ("answer: 1\nAnswer: 2\nthat was it", "2"),
    (r"Answer: \boxed{42}", "42"),
    ("\\boxed{41}\nAnswer: 42", "42"),
    ("Answer: 41\nso \\boxed{42}", "42"),
    ("#### 41\nAnswer: 42", "42"),
    ("Answer:\n42", "42"),
    ("**Answer:**\n\n42", "42"),
    ("Answer: \\[42\\]", "42"),
    ("Answer: `42`", "42"),
    ("Answer:", ""),
    ("the answers: 42", None),
    ("I answer 42", None),
]


@pytest.mark.parametrize(("completion", "answer"), ANSWER_LINES)
def test_an_answer_line_is_a_mark_if_enabled(completion: str, answer: str | None) -> None:
    assert marked_answer(completion, answer_line=True) == answer


def test_an_answer_line_is_not_a_mark_by_default() -> None:
    assert marked_answer("Answer: 42") is None


@pytest.mark.parametrize(
    "text",
    [
        "answer" + "*" * 1_000_000,
        "answer:" * 150_000,
        "answer" + " " * 1_000_000,
        "answer:" + "\n" * 1_000_000,
    ],
)
def test_a_million_characters_of_answer_lines_are_searched_quickly(text: str) -> None:
    started = time.process_time()
    marked_answer(text, answer_line=True)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("completion", "is_right"),
    [
        ("Answer: 42", True),
        ("Answer: $42$.", True),
        (r"Answer: \(42\)", True),
        ("Answer: 042", True),
        ("Answer: 1,234", False),
        ("Answer: 41 or 42", False),
        ("Answer: $Answer", False),
    ],
)
def test_answer_lines_are_graded_as_exact_numbers(completion: str, is_right: bool) -> None:
    assert grade(completion, "42", AnswerFormat(answer_line=True)).correct is is_right
    assert not grade(completion, "42").correct

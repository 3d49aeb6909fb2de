"""Kinds of answers that chat models write: each decision of the table in docs/evaluation.md, in both directions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cppo_lab.tasks.grading.answers import AnswerFormat, grade
from cppo_lab.tasks.grading.spelling import latex, plain
from cppo_lab.tasks.grading.verdict import Outcome

CASES = Path(__file__).parents[4] / "shared" / "cases"
TEXT = AnswerFormat(comparison="text")

# kind: (right completions, others), for the reference 18.
NUMBERS: dict[str, tuple[list[str], list[str]]] = {
    "a heading after the answer": (
        [
            "so \\boxed{18}\n\n#### Explanation\nblah",
            "#### 18\n\n#### Note:\nDone",
            "\\boxed{18}\n\n##### Verification\n2*9=18",
            "\\boxed{18}\n  #### **Step by step**\n9 + 9",
            "<answer>18</answer>\n#### Why\nbecause",
        ],
        [
            "\\boxed{18}\n#### 19",
            "\\boxed{18}\n#### nineteen",
            "#### 18\n#### no, that is wrong",
            "#### 18 #### Explanation",
            "#### 18\n#### ",
            "\\boxed{18}\n#### x",
            "#### Explanation\n18",
        ],
    ),
    "a heading before the answer": (
        ["#### Answer\n#### 18", "#### Final answer\n\\boxed{18}"],
        ["#### Answer: 18", "#### Answer\n18"],
    ),
    "CJK punctuation and units": (
        ["#### 18。", "#### 18元", "#### 18 个苹果", "#### 18円", "#### ￥18", "#### 18｡"],
        ["#### 18。5", "#### 18万", "#### 18亿元", "#### 18不是", "#### 18或19", "#### 18元19元"],
    ),
    "currencies": (
        ["#### ₹18", "#### 18 €", "#### ₩18", "\\boxed{₽18}"],
        ["#### 18¢", "#### ₹18₹19"],
    ),
    "invisible and non-breaking characters": (
        [
            "\\boxed{18\u200b}",
            "\\boxed{\u200e18}",
            "#### 18\u00a0dollars",
            "#### \ufeff18",
            "#### 18\u200b\u200b.",
        ],
        ["#### 1\u00a08", "#### 1\u30008", "#### 1\u200b8", "#### 1\u200b\u200e8"],
    ),
    "full-width forms": (
        ["#### ＄18", "#### 18．0", "#### 18．"],
        ["#### １８", "#### １９", "#### 18％", "#### ⑱", "#### १८"],
    ),
    "Unicode minus": (["#### 18"], ["#### −18", "#### －18"]),
    "answer tags": (
        [
            "<answer>18</answer>",
            "<answer> #### 18</answer>",
            "<answer>\\boxed{18}</answer>",
            "\\boxed{17} <answer>18</answer>",
            "<ANSWER>\n18\n</ANSWER>",
        ],
        [
            "<answer>18",
            "18</answer>",
            "<answer>18</answer> #### 19",
            "<answer>18</answer><answer>19</answer>",
            "<answer>18 or 19</answer>",
        ],
    ),
    "thinking": (
        [
            "<think>maybe \\boxed{17}</think> #### 18",
            "so \\boxed{17}?</think>\\boxed{18}",
            "<thinking>no</thinking>#### 18",
            "no tags: \\boxed{18}",
        ],
        [
            "<think>it is \\boxed{18}",
            "<think>#### 18</think> The answer is 18.",
            "#### 18 <think>wait",
            "\\boxed{18}</think>",
        ],
    ),
    "words after the mark": (
        ["#### 18\nand the reasoning above confirms it."],
        ["#### 18 and the reasoning above confirms it."],
    ),
}

# kind: (reference, right answers, other answers).
EXPRESSIONS: list[tuple[str, list[str], list[str]]] = [
    (r"\sqrt{2}", ["√2", "√(2)", "√{2}", "2√2/2"], ["√3", "√", "∛2", "√2√2"]),
    (r"2\sqrt{3}", ["2√3", "√12"], ["√23", "√6"]),
    (r"\sqrt{x+1}", ["√(x+1)"], ["√x+1"]),
    (r"\sqrt[3]{2}", ["∛2"], ["√2"]),
    (r"\frac{1}{2}", ["½", "0.5", "2/4"], ["⅓", "¼", "1½"]),
    (r"\frac{3}{2}", ["1½", r"1\frac{1}{2}"], ["½"]),
    ("x^2", ["x²", "x·x", "x×x"], ["x³", "x2", "x₂", "2x"]),
    ("x^{-1}", ["x⁻¹", "1/x"], ["x¹", "-x"]),
    ("2^{10}", ["2¹⁰", "1024"], ["2¹", "20"]),
    (r"\infty", ["∞", "+∞"], ["−∞", "8"]),
    (r"(-\infty,3)", ["(−∞, 3)", "（－∞，3）"], ["(−∞, 3]", "(∞, 3)"]),
    (r"[1,2)\cup(3,\infty)", ["[1,2) ∪ (3,∞)"], ["[1,2) ∩ (3,∞)"]),
    (r"10\pi", ["10π"], ["10", "π"]),
    (r"x \ge 2", ["x ≥ 2"], ["x ≤ 2", "x > 2", "x ≠ 2"]),
    (r"\{1,2\}", [r"\{2,1\}", "1,2"], ["(1,2)", "(2,1)", "1"]),
    ("(1,2)", ["(1,2)", "（1，2）"], [r"\{1,2\}", "(2,1)"]),
]

RIGHT = [(kind, text) for kind, (right, _) in NUMBERS.items() for text in right]
OTHER = [(kind, text) for kind, (_, other) in NUMBERS.items() for text in other]


@pytest.mark.parametrize(("kind", "completion"), RIGHT)
def test_a_number_of_this_kind_is_read(kind: str, completion: str) -> None:
    assert grade(completion, "18").correct, kind


@pytest.mark.parametrize(("kind", "completion"), OTHER)
def test_a_number_beside_this_kind_is_not_taken_for_it(kind: str, completion: str) -> None:
    assert not grade(completion, "18").correct, kind


@pytest.mark.parametrize(
    ("gold", "answer"), [(gold, each) for gold, right, _ in EXPRESSIONS for each in right]
)
def test_unicode_mathematics_is_read(gold: str, answer: str) -> None:
    assert grade(rf"\boxed{{{answer}}}", gold).correct
    if answer.isascii():
        return
    assert grade(rf"\boxed{{{gold}}}", answer).correct, "in the reference as well"


@pytest.mark.parametrize(
    ("gold", "answer"), [(gold, each) for gold, _, other in EXPRESSIONS for each in other]
)
def test_other_unicode_mathematics_is_not_taken_for_it(gold: str, answer: str) -> None:
    assert not grade(rf"\boxed{{{answer}}}", gold).correct


def test_large_powers_in_superscripts_are_refused_like_others() -> None:
    assert grade(r"\boxed{9⁹⁹⁹⁹⁹}", r"\sqrt{2}").outcome is Outcome.REJECTED


def test_text_is_compared_without_invisible_characters() -> None:
    assert grade("#### Sau\u00adlt\u200b Ste. Marie。", "sault ste. marie", TEXT).correct
    assert not grade("#### Sault", "sault ste. marie", TEXT).correct


def test_a_line_of_words_is_the_answer_where_nothing_else_is_marked() -> None:
    assert grade("#### Evelyn", "Evelyn", TEXT).correct
    assert grade("\\boxed{Evelyn}\n#### Explanation", "Evelyn", TEXT).correct


def test_spellings_leave_ordinary_text_alone() -> None:
    for text in ("x^2 + 1", r"\frac{1}{2}", "1,234.50 dollars", "Café"):
        assert plain(text) == text
        assert latex(text) == text


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here")
@pytest.mark.parametrize(
    "name", ["01-heading-after-answer", "03-cjk-and-invisible", "05-unicode-maths", "15-tail-after-mark"]
)
def test_reported_cases_have_their_right_verdicts(name: str) -> None:
    rows = [
        json.loads(line) for line in (CASES / name / "grades.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert rows
    for row in rows:
        if row["right"] is not None:
            assert grade(row["completion"], row["gold"]).correct == row["right"], row

"""Equality of mathematical answers: math-verify behind guards, with its inexact numeric comparison replaced.

Import this in a worker process only: sympy takes a second to load, and an answer can take arbitrarily long.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import math_verify.grader
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Basic, Float, MatrixBase, Number
from sympy.core.expr import Expr

from cppo_lab.tasks.grading.guards import refusal
from cppo_lab.tasks.grading.spelling import latex
from cppo_lab.tasks.grading.verdict import Outcome, Verdict, judged

_DECIMALS = 6
"""Decimals are equal if they agree to this many places, as in math-verify."""
_DIGITS = 30
_EXACT = 10.0**-20
# A decimal close to zero must agree in its leading digits too.
_RELATIVE = 10.0**-5
_LETTER = re.compile(r"\\(?:mathrm|text|textit|mathit)\s*\{\s*([A-Za-z])\s*\}")
_PERCENT_WORD = r"\\?%|\\(?:text|mbox|mathrm)\s*\{\s*(?:percent|pct)\s*\}|(?:percent(?:age)?|pct)\b"
_PERCENT = re.compile(rf"(?<=\d)(\$?)\s*(?:{_PERCENT_WORD})")
_NUMERAL = re.compile(r"(?P<digits>-?[0-9A-Z]+)\s*_\s*\{?\s*(?P<base>\d+)\s*\}?")
_UNEQUAL = re.compile(r"\\neq?(?![A-Za-z])|\\not(?![A-Za-z])|≠")
# A set of pairs, \{(1,2)\}, is left to math-verify.
_SET = re.compile(r"\s*(?:\\left\s*)?\\\{(?!\s*(?:\\left\s*)?\().*\\\}\s*", re.DOTALL)
_ORDERED = re.compile(r"\s*(?:\\left\s*)?\(.*\)\s*", re.DOTALL)
_TARGETS = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())

logging.getLogger("math_verify").setLevel(logging.ERROR)


def _close(first: Expr, second: Expr, relative: float) -> bool:
    """Whether two numbers differ by at most `relative` of the larger. Raises where they have no value."""
    largest = max(abs(first.evalf(_DIGITS)), abs(second.evalf(_DIGITS)))
    if not largest.is_finite:
        # Any difference is small relative to infinity; equal infinities were found equal before.
        return False
    if largest == 0:
        return True
    # The difference of two equal expressions is evaluated to few digits, but its size is right.
    return bool(abs((first - second).evalf(_DIGITS)) <= relative * largest)


def _has_decimals(expression: Basic) -> bool:
    return bool(expression.atoms(Float))


def numeric_equality(first: Any, second: Any, float_rounding: int, numeric_precision: int) -> bool:
    """Whether two expressions without symbols are the same number; replaces math-verify's `sympy_numeric_eq`.

    Exact numbers must agree to 20 digits relative to their size; the original takes any difference below 1e-15 for
    zero, so that 1/2^99 equals 1/2^98. Decimals must agree when rounded to `float_rounding` places, and in their
    leading digits. A percentage is a hundredth; the original takes 18% for 18. Matrices are compared entry by entry.
    """
    if isinstance(first, MatrixBase) and isinstance(second, MatrixBase):
        return first.shape == second.shape and all(
            numeric_equality(a, b, float_rounding, numeric_precision)
            for a, b in zip(first.flat(), second.flat(), strict=True)
        )
    if not isinstance(first, Basic) or not isinstance(second, Basic):
        return False
    if first.free_symbols or second.free_symbols:
        # Symbolic equality, which comes next, decides these exactly.
        return False
    try:
        a, b = first.doit(), second.doit()
        if isinstance(a, Number) and isinstance(b, Number) and not (_has_decimals(a) or _has_decimals(b)):
            return bool(a == b)
        if _has_decimals(a) or _has_decimals(b):
            rounded = bool(a.round(float_rounding) == b.round(float_rounding))
            return rounded and _close(a, b, max(_RELATIVE, 10.0**-float_rounding))
        return _close(a, b, _EXACT)
    except (TypeError, ValueError, AttributeError, ArithmeticError):
        # Not a number after all: an unevaluated function, an undefined value, a relation.
        return False


math_verify.grader.sympy_numeric_eq = numeric_equality


def _prepared(text: str) -> str:
    # math-verify takes \mathrm{e} for a unit and drops what follows; it drops \% too.
    return _PERCENT.sub(r"/100\1", _LETTER.sub(r"\1", text))


def _balanced(text: str) -> bool:
    return text.count("{") == text.count("}") and text.count("(") == text.count(")")


def parsed(text: str, targets: Sequence[Any] = _TARGETS) -> list[Any]:
    """The expressions that math-verify finds in `text`, the raw string last; empty if it finds none.

    Also empty if its normalisation lost a part of a balanced text.
    """
    found: list[Any] = parse(_prepared(text), list(targets), parsing_timeout=None)
    strings = [item for item in found if isinstance(item, str)]
    if strings and _balanced(text) and not all(_balanced(string) for string in strings):
        return []
    return found


def equal_expressions(
    gold: Sequence[Any],
    answer: Sequence[Any],
    *,
    decimals: int = _DECIMALS,
    strict: bool = True,
    allow_set_relation_comp: bool = False,
) -> bool:
    """Whether the parsed answer equals the parsed reference (their order matters)."""
    return bool(
        verify(
            list(gold),
            list(answer),
            float_rounding=decimals,
            strict=strict,
            allow_set_relation_comp=allow_set_relation_comp,
            timeout_seconds=None,
        )
    )


def _boxed(answer: str) -> str:
    inner = answer.strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if inner.startswith(opening) and inner.endswith(closing) and len(inner) > len(opening + closing):
            inner = inner[len(opening) : -len(closing)]
            break
    return rf"\boxed{{{inner}}}"


def _confuses_order(first: str, second: str) -> bool:
    """Whether `first` is an ordered pair or tuple and `second` a set, which math-verify takes for each other."""
    return bool(_ORDERED.fullmatch(first.strip("$")) and _SET.fullmatch(second.strip("$")))


def grade_expression(answer: str, gold: str) -> Verdict:
    """The verdict on an extracted answer such as `\\frac{1}{2}`, against a reference answer."""
    answer, gold = latex(answer), latex(gold)
    shown = " ".join(answer.split())
    if refusal(answer) is not None:
        return Verdict(Outcome.REJECTED)
    if not shown:
        return Verdict(Outcome.UNPARSABLE)
    numeral = _NUMERAL.fullmatch(gold.strip())
    if numeral:
        # math-verify reads only the digits, so that 52_8 would equal 52_9.
        own = _NUMERAL.fullmatch(answer.strip())
        same_base = own is None or own["base"] == numeral["base"]
        return judged(same_base and (own["digits"] if own else answer.strip()) == numeral["digits"], shown)
    if _UNEQUAL.search(answer) and not _UNEQUAL.search(gold):
        # math-verify drops the sign, so that \ne 5 would equal 5.
        return Verdict(Outcome.WRONG, shown)
    if _confuses_order(answer, gold) or _confuses_order(gold, answer):
        return Verdict(Outcome.WRONG, shown)
    try:
        reference, found = parsed(_boxed(gold)), parsed(_boxed(answer))
        if not found:
            return Verdict(Outcome.UNPARSABLE)
        return judged(equal_expressions(reference, found), shown)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        # sympy and its parser raise almost any exception on odd input; one answer must not end a training run.
        return Verdict(Outcome.UNPARSABLE)

"""Exact grading of numeric answers: no symbolic mathematics, so nothing to hang and nothing to fool."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation

# Longer "numbers" are no answer to a word problem; refusing them keeps the comparison cheap.
_MAX_DIGITS = 64
_MARKED = re.compile(r"#{4,}\s*((?:(?!####)[^\n])*)")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+", re.ASCII)
# The default context would round to 28 digits.
_EXACT = Context(prec=_MAX_DIGITS)
_WRAPPING = re.compile(r"^[\s$€£]*|[\s.]*$")


@dataclass(frozen=True)
class Verdict:
    """`parsed` is the normalised number found in the completion, or None when there is none."""

    correct: bool
    parsed: str | None

    @property
    def reward(self) -> float:
        """1 for a correct answer, 0 for anything else."""
        return float(self.correct)


def parse_number(text: str) -> Decimal | None:
    """The number that `text` consists of (thousands separators, a currency sign and a final period allowed)."""
    text = _WRAPPING.sub("", text)
    if len(text) > _MAX_DIGITS or not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None


def normalised(number: Decimal) -> str:
    """`18`, `18.0` and `18.00` are one number; this is its one spelling."""
    return format(_EXACT.plus(_EXACT.normalize(number)), "f")


def marked_answer(completion: str) -> str | None:
    """The text after the last `####`, or in the last `\\boxed{}`, whichever comes later; None if neither."""
    marks = [*_MARKED.finditer(completion), *_BOXED.finditer(completion)]
    return max(marks, key=lambda m: m.start()).group(1) if marks else None


def grade_number(completion: str, answer: str) -> Verdict:
    """Compare the completion's marked answer with `answer` as exact decimal numbers.

    Raises ValueError when `answer` itself is no number: a data error, not a wrong completion.
    """
    gold = parse_number(answer)
    if gold is None:
        raise ValueError(f"answer {answer[:40]!r}: not a number")
    marked = marked_answer(completion)
    found = None if marked is None else parse_number(marked)
    if found is None:
        return Verdict(correct=False, parsed=None)
    return Verdict(correct=found == gold, parsed=normalised(found))

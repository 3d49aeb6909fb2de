"""Exact grading of integers and decimals, without symbolic mathematics."""

from __future__ import annotations

import itertools
import re
from decimal import Context, Decimal

from cppo_lab.tasks.grading.extraction import marked_answer
from cppo_lab.tasks.grading.spelling import plain
from cppo_lab.tasks.grading.verdict import Outcome, Verdict, judged
from cppo_lab.tasks.grading.words import CJK_SCALES, NO_UNITS

# Longer numbers do not answer a word problem; refusing them keeps the comparison cheap.
_MAX_DIGITS = 64
# A number, its currency and its unit; anything longer is prose.
_MAX_ANSWER = 200
_MAX_UNIT_WORDS = 4
# The default context would round to 28 digits.
_EXACT = Context(prec=_MAX_DIGITS)

_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+"
# Not the cent, which is a hundredth.
_CURRENCY = r"[\s$€£¥₹₩₽₺₫₦₱฿￥￡]"
_CJK_UNIT = rf"\s*(?![{CJK_SCALES}])(?:(?![{CJK_SCALES}])[\u3041-\u30ff\u4e00-\u9fff\uac00-\ud7af]){{1,4}}"
_PLAIN = re.compile(rf"{_CURRENCY}*(?P<number>{_NUMBER})[\s.]*", re.ASCII)
_UNIT = rf"{_CURRENCY}*[A-Za-z°][A-Za-z°'’/^\s.-]*|{_CJK_UNIT}|\s*{_CURRENCY}"
_QUANTITY = re.compile(rf"(?P<minus>-?){_CURRENCY}*(?P<number>{_NUMBER})(?P<unit>{_UNIT})?[\s.]*", re.ASCII)
# Chat models set answers in bold. The spaces keep 2**3**4 from being read as 234.
_EMPHASIS = re.compile(r"\*\*([^*]+)\*\*")
_LATEX_SPACE = re.compile(r"\\[,;: ]|~|\\(?:quad|qquad)(?![A-Za-z])")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\[,;: ]|~)(?=\d{3}(?!\d))", re.ASCII)
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|textrm|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z])\s*(?:\^\s*(?:[23]|\{\s*[23]\s*\})|[²³])(?!\d)")
# Any other single letter is a variable.
_LETTER_UNITS = frozenset("mgshlLWVJNACF")


def _exact(digits: str) -> Decimal | None:
    return Decimal(digits.replace(",", "")) if len(digits) <= _MAX_DIGITS else None


def parse_number(text: str) -> Decimal | None:
    """`text` as a number (thousands separators, a currency sign and a final period allowed); None if it is not one."""
    if len(text) > _MAX_ANSWER:
        return None
    found = _PLAIN.fullmatch(plain(text))
    return _exact(found["number"]) if found else None


def _is_unit(text: str) -> bool:
    words = re.findall(r"[A-Za-z'’]+", text)
    letters = {word for word in words if len(word) == 1} - ({"a"} if len(words) > 1 else set())
    if len(words) > _MAX_UNIT_WORDS or letters - _LETTER_UNITS:
        return False
    lower = [word.lower() for word in words]
    return not NO_UNITS.intersection(lower) and ("per", "cent") not in itertools.pairwise(lower)


def _without_latex(text: str) -> str:
    text = _EMPHASIS.sub(r" \1 ", plain(text))
    text = text.replace(r"\$", "$").replace(r"\(", "").replace(r"\)", "").replace(r"\!", "")
    text = _LATEX_SPACE.sub(" ", _THOUSANDS.sub("", text))
    text = _LATEX_TEXT.sub(r" \1", _DEGREES.sub(" degrees", text))
    return _UNIT_POWER.sub("", text).replace("$", " ").strip()


def parse_quantity(text: str) -> Decimal | None:
    """The number in a quantity: `18`, `$1,234.50`, `18 dollars per day`, `1{,}234\\text{ cm}`, `90^\\circ`.

    None for a percentage, a product, two numbers, or a number with a scale (`18 million`).
    """
    if len(text) > _MAX_ANSWER:
        return None
    found = _QUANTITY.fullmatch(_without_latex(text))
    if found is None or not _is_unit(found["unit"] or ""):
        return None
    if found["minus"] and found["number"][0] in "+-":
        return None
    number = _exact(found["number"])
    return -number if number is not None and found["minus"] else number


def normalised(number: Decimal) -> str:
    """The canonical spelling of a number: `18` for `18`, `18.0` and `18.00`."""
    text = format(_EXACT.plus(_EXACT.normalize(number)), "f")
    return "0" if text == "-0" else text


def grade_number(response: str, answer: str, answer_line: bool = False) -> Verdict:
    """Compare the response's marked answer with `answer` as exact decimals; `answer_line` is that of `marked_answer`.

    Raises ValueError if `answer` itself is not a number: an error in the data, not a wrong response.
    """
    gold = parse_number(answer)
    if gold is None:
        raise ValueError(f"answer {answer[:40]!r}: not a number")
    marked = marked_answer(response, answer_line)
    if marked is None:
        return Verdict(Outcome.UNPARSABLE)
    if len(marked) > _MAX_ANSWER:
        return Verdict(Outcome.REJECTED)
    found = parse_quantity(marked)
    return Verdict(Outcome.UNPARSABLE) if found is None else judged(found == gold, normalised(found))

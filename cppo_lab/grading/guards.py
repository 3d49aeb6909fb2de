"""What is refused before symbolic mathematics sees it: answers that take long, or for ever, to parse or to evaluate."""

from __future__ import annotations

import re

MAX_CHARACTERS = 400
"""The longest answer of MATH-500 has 53."""
_MAX_NESTING = 20
_MAX_DIGITS = 64
_MAX_EXPONENT_DIGITS = 4
_MAX_FACTORIAL_DIGITS = 4
_MAX_ELEMENTS = 100

_EXPONENT = re.compile(r"(?:\^|\*\*)\s*\{?\s*[-+(]*\s*(?P<digits>\d[\d,\s]*)")
_POWER = re.compile(r"(?:\^|\*\*)\s*")
_BARE_TOWER = re.compile(r"[-+]?\d+\s*(?:\^|\*\*)")
_NUMERIC_POWER = re.compile(r"\d\s*[})]?\s*(?:\^|\*\*)")
_DEGREES = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_FACTORIAL = re.compile(r"(?P<digits>\d+)\s*!")
_NESTED_FACTORIAL = re.compile(r"!\s*[)}\]\s]*\s*!|[)}\]]\s*!")
_DIGITS = re.compile(r"\d+")
# They are evaluated while they are parsed, however large their arguments.
_EVALUATED_AT_ONCE = re.compile(r"\\(?:d|t)?binom\b|\\(?:sum|prod|int|iint|lim)\b|\\bmod\b|\\pmod\b|\bmod\b")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]|[\ud800-\udfff]")


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
    return deepest


def _group(text: str, start: int) -> str:
    """What the bracket that opens at `start` holds, its end left open where it is never closed; empty if none opens."""
    if text[start : start + 1] not in ("{", "("):
        return ""
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "(": 1, "}": -1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + 1 : place]
    return text[start + 1 :]


def _is_tower(text: str) -> bool:
    """Whether some exponent holds a power of a number, as 9^{9^9} does and e^{-x^2} does not."""
    text = _DEGREES.sub("", text).replace(r"\left", "")
    return any(
        _BARE_TOWER.match(text, power.end()) or _NUMERIC_POWER.search(_group(text, power.end()))
        for power in _POWER.finditer(text)
    )


def refusal(answer: str, longest: int = MAX_CHARACTERS) -> str | None:
    """Why `answer` is not to be parsed, in a few words; None when it may be.

    Not all that is slow is seen here: the worker's limits on time and memory hold for the rest.
    """
    if len(answer) > longest:
        return "too long"
    if _CONTROL.search(answer):
        return "control characters"
    if (
        _nesting(answer) > _MAX_NESTING
        or len(re.findall(r"\\(?:d|t|c)?(?:frac|sqrt)", answer)) > _MAX_NESTING
    ):
        return "nested too deeply"
    if any(len(digits) > _MAX_DIGITS for digits in _DIGITS.findall(answer)):
        return "a number of too many digits"
    if _is_tower(answer):
        return "a tower of powers"
    if any(
        len(re.sub(r"\D", "", power["digits"])) > _MAX_EXPONENT_DIGITS for power in _EXPONENT.finditer(answer)
    ):
        return "too large an exponent"
    if _NESTED_FACTORIAL.search(answer) or any(
        len(number["digits"]) > _MAX_FACTORIAL_DIGITS for number in _FACTORIAL.finditer(answer)
    ):
        return "too large a factorial"
    if _EVALUATED_AT_ONCE.search(answer) and any(len(digits) > 3 for digits in _DIGITS.findall(answer)):
        return "a sum, product or binomial over large numbers"
    if answer.count(",") + answer.count(";") + answer.count("&") > _MAX_ELEMENTS:
        return "too many elements"
    return None

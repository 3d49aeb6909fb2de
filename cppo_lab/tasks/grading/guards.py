"""Answers that are refused before symbolic mathematics: those that would take very long to parse or evaluate."""

from __future__ import annotations

import re

MAX_CHARACTERS = 400
"""The longest answer of MATH-500 has 53."""
_MAX_NESTING = 20
_MAX_DIGITS = 64
_MAX_EXPONENT_DIGITS = 4
# Over all numbers in one exponent, or the exponents of nested powers.
_MAX_EXPONENTS_DIGITS = 6
_MAX_FACTORIAL_DIGITS = 4
_MAX_ELEMENTS = 100
# Simplification tries identities for every pair of them.
_MAX_FUNCTIONS = 12

_POWER = re.compile(r"(?:\^|\*\*)\s*")
_FIRST_NUMBER = re.compile(r"[-+(\s]*(?P<digits>\d[\d,\s]*)")
_BARE_TOWER = re.compile(r"[-+]?\d+\s*(?:\^|\*\*)")
_BARE_EXPONENT = re.compile(r"\\[A-Za-z]+(?:\s*\{[^{}]*\})*|[-+]?[\d,\s]*\d|.")
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_DEGREES = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_GROUP_BEFORE = re.compile(r"[)}\]]\s*$")
_FACTORIAL = re.compile(r"(?P<digits>\d*)\s*!")
_SCIENTIFIC = re.compile(r"\d\.?[eE][-+]?\d{4}")
_DIGITS = re.compile(r"\d+")
_FRACTION_OR_ROOT = re.compile(r"\\(?:d|t|c)?(?:frac|sqrt)")
_FUNCTION = re.compile(r"\\(?:arc|a)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp)")
# These are evaluated during parsing, however large their arguments.
_EVALUATED_AT_ONCE = re.compile(r"\\(?:sum|prod|int|iint|lim|Gamma)(?![A-Za-z])")
_BINOMIAL_OR_MODULO = re.compile(r"\\(?:d|t)?binom(?![A-Za-z])|\bmod\b|\\p?mod\b|\\bmod\b")
_POWER_OF_NUMBERS = re.compile(r"(?<![_\d])\d+\s*(?:\^|\*\*)\s*\{?\s*\d")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]|[\ud800-\udfff]")
_OPENING, _CLOSING = "([{", ")]}"


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSING:
            depth = max(0, depth - 1)
    return deepest


def _group(text: str, start: int) -> str:
    """The content of the bracket that opens at `start`, to the end of the text if never closed; empty if none opens."""
    if text[start : start + 1] not in ("{", "("):
        return ""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in _OPENING) - (text[place] in _CLOSING)
        if depth == 0:
            return text[start + 1 : place]
    return text[start + 1 :]


def _group_before(text: str, end: int) -> str:
    """The content of the bracket that closes right before `end`; empty if none closes there."""
    closing = _GROUP_BEFORE.search(text, 0, end)
    if closing is None:
        return ""
    depth = 0
    for place in range(closing.start(), -1, -1):
        depth += (text[place] in _CLOSING) - (text[place] in _OPENING)
        if depth == 0:
            return text[place + 1 : closing.start()]
    return text[: closing.start()]


def _digits(text: str) -> int:
    return sum(len(digits) for digits in _DIGITS.findall(text))


def _exponent(text: str, start: int) -> str:
    """The exponent at `start`: a group's content, a number, a command with its arguments, or a character."""
    if text[start : start + 1] in ("{", "("):
        return _group(text, start)
    found = _BARE_EXPONENT.match(text, start)
    return found.group() if found else ""


def _is_tower(text: str) -> bool:
    """Whether some exponent is itself a power: 9^9^9 or a^{b^c}, but neither x^2 nor 2^n."""
    for power in _POWER.finditer(text):
        exponent = _exponent(text, power.end())
        if _BARE_TOWER.match(text, power.end()):
            return True
        for inner in _POWER.finditer(exponent):
            highest = _exponent(exponent, inner.end())
            is_number = exponent[: inner.start()].rstrip(" })")[-1:].isdigit()
            if _POWER.search(highest) or (is_number and not _VARIABLE.search(highest)):
                return True
    return False


def _is_large_exponent(exponent: str) -> bool:
    """Whether an exponent may be large: a long number, many digits, or a factorial or binomial of numbers."""
    first = _FIRST_NUMBER.match(exponent)
    if first and _digits(first["digits"]) > _MAX_EXPONENT_DIGITS:
        return True
    grows = "!" in exponent or _EVALUATED_AT_ONCE.search(exponent) or _BINOMIAL_OR_MODULO.search(exponent)
    return _digits(exponent) > (1 if grows else _MAX_EXPONENTS_DIGITS)


def _has_large_power(text: str) -> bool:
    for power in _POWER.finditer(text):
        exponent = _exponent(text, power.end())
        base = _group_before(text, power.start())
        within = [_digits(_exponent(base, inner.end())) for inner in _POWER.finditer(base)]
        if _is_large_exponent(exponent) or (
            within and sum(within) + _digits(exponent) > _MAX_EXPONENTS_DIGITS
        ):
            return True
    return False


def _has_large_factorial(text: str) -> bool:
    for factorial in _FACTORIAL.finditer(text):
        group = _group_before(text, factorial.start())
        if text[factorial.end() : factorial.end() + 1] == "!" or "!" in group or _POWER.search(group):
            return True
        if max(len(factorial["digits"]), _digits(group)) > _MAX_FACTORIAL_DIGITS:
            return True
    return False


def _is_long_evaluation(text: str) -> bool:
    at_once = len(_EVALUATED_AT_ONCE.findall(text))
    if not at_once and not _BINOMIAL_OR_MODULO.search(text):
        return False
    longest = max((len(digits) for digits in _DIGITS.findall(text)), default=0)
    return longest > (4, 2, 1)[min(at_once, 2)] or bool(_POWER_OF_NUMBERS.search(text))


def refusal(answer: str, longest: int = MAX_CHARACTERS) -> str | None:
    """Why `answer` must not be parsed, in a few words; None if it may be.

    Not every slow answer is recognised here: the worker's limits on time and memory cover the rest.
    """
    if len(answer) > longest:
        return "too long"
    if _CONTROL.search(answer):
        return "control characters"
    if _nesting(answer) > _MAX_NESTING or len(_FRACTION_OR_ROOT.findall(answer)) > _MAX_NESTING:
        return "nested too deeply"
    if any(len(digits) > _MAX_DIGITS for digits in _DIGITS.findall(answer)):
        return "a number of too many digits"
    text = _DEGREES.sub("", answer).replace(r"\left", "").replace(r"\right", "")
    if _is_tower(text):
        return "a tower of powers"
    if _SCIENTIFIC.search(text) or _has_large_power(text):
        return "too large an exponent"
    if _has_large_factorial(text):
        return "too large a factorial"
    if _is_long_evaluation(text):
        return "a sum, product or binomial over large numbers"
    if len(_FUNCTION.findall(text)) > _MAX_FUNCTIONS:
        return "too many functions"
    if answer.count(",") + answer.count(";") + answer.count("&") > _MAX_ELEMENTS:
        return "too many elements"
    return None

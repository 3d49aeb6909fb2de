"""One spelling for what is written in several: invisible characters, full-width forms, Unicode mathematics."""

from __future__ import annotations

import re

# Zero-width and soft-hyphen characters, marks of writing direction, byte-order marks.
_CHARACTERS = "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
# Not between digits, which would become another number.
_INVISIBLE = re.compile(rf"(?<!\d){_CHARACTERS}+|{_CHARACTERS}+(?!\d|{_CHARACTERS})", re.ASCII)
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
# Not the digits: a number in them is no answer.
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if not chr(code - 0xFEE0).isdigit()}
_SIGNS = {ord("\u2212"): "-", ord("\ufe63"): "-"}
_CJK_END = re.compile(r"[。｡]\s*$")

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()", strict=True))
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_FRACTIONS = {
    "½": "12",
    "⅓": "13",
    "⅔": "23",
    "¼": "14",
    "¾": "34",
    "⅕": "15",
    "⅖": "25",
    "⅗": "35",
    "⅘": "45",
    "⅙": "16",
    "⅚": "56",
    "⅐": "17",
    "⅛": "18",
    "⅜": "38",
    "⅝": "58",
    "⅞": "78",
    "⅑": "19",
}
_FRACTION = re.compile(f"[{''.join(_FRACTIONS)}]")
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}
# A root reaches over what stands next: a group, a number, a letter, or a command.
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]|\\[A-Za-z]+))")
_SYMBOLS = {
    "∞": r"\infty",
    "π": r"\pi",
    "×": r"\times",
    "÷": r"\div",
    "·": r"\cdot",
    "⋅": r"\cdot",
    "≤": r"\le",
    "≥": r"\ge",
    "∪": r"\cup",
    "∩": r"\cap",
    "∅": r"\emptyset",
    "±": r"\pm",
    "∓": r"\mp",
    "∈": r"\in",
    "ℝ": r"\mathbb{R}",
}
_SYMBOL = re.compile(f"[{''.join(_SYMBOLS)}]")


def plain(text: str) -> str:
    """`text` without invisible characters, with ordinary spaces, signs and full-width forms, and no final CJK stop."""
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text)).translate(_FULL_WIDTH).translate(_SIGNS)
    return _CJK_END.sub("", text)


def latex(text: str) -> str:
    """`plain` text with Unicode mathematics written as LaTeX: √2, ½, x², ∞."""
    text = plain(text)
    text = _FRACTION.sub(lambda found: r"\frac{{{}}}{{{}}}".format(*_FRACTIONS[found.group()]), text)
    text = _RAISED.sub(lambda found: f"^{{{_lined_up(found.group(), _SUPERSCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda found: f"_{{{_lined_up(found.group(), _SUBSCRIPTS)}}}", text)
    text = _SYMBOL.sub(lambda found: _SYMBOLS[found.group()] + " ", text)
    return _ROOT.sub(_root, text)


def _lined_up(text: str, known: dict[str, str]) -> str:
    return "".join(known[character] for character in text)


def _root(found: re.Match[str]) -> str:
    sign, *radicands = found.groups()
    radicand = next(each for each in radicands if each is not None)
    return rf"\sqrt{_ROOTS[sign]}{{{radicand}}}"

"""Text of models and data made safe to show: invisible characters written out, long text cut."""

from __future__ import annotations

import unicodedata

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_MARKS = ("Mn", "Me")
# More marks on one letter than any script needs: a heap of them reaches over the lines above and below.
_MOST_MARKS = 4


def visible(text: str) -> str:
    """The text with control, format and direction characters as \\u escapes, newline and tab kept.

    Left as they are, such characters could reverse or hide what follows them on the page. Of combining marks, those
    beyond four on one letter are written out too.
    """
    out: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in _MARKS else 0
        unseen = category in _UNSEEN and character not in "\n\t"
        out.append(_escape(character) if unseen or marks > _MOST_MARKS else character)
    return "".join(out)


def brief(text: object, most: int) -> str:
    """At most `most` characters of a text, and how many were left out."""
    whole = str(text)
    if len(whole) <= most:
        return whole
    return f"{whole[:most]} … ({len(whole) - most:,} more characters)".replace(",", "\u202f")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"

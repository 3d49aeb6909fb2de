"""Where a completion says its answer."""

from __future__ import annotations

import re

_MARKED = re.compile(r"#{4,}[^\S\n]*((?:(?!####)[^\n])*)")
# A backslash takes the next character with it, so that escaped braces do not count.
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


def _last_boxed(text: str) -> tuple[int, str] | None:
    """Start and content of the last box that is closed; the inner one of two nested boxes. Linear in the text."""
    found: tuple[int, str] | None = None
    opened: list[tuple[int, int] | None] = []
    for token in _BRACES.finditer(text):
        word = token.group()
        if word == "}":
            box = opened.pop() if opened else None
            if box is not None and (found is None or box[0] > found[0]):
                found = box[0], text[box[1] : token.start()]
        elif word == "{":
            opened.append(None)
        elif word.endswith("{") and len(word) > 2:
            opened.append((token.start(), token.end()))
    return found


def marked_answer(completion: str) -> str | None:
    """The text after the last `####`, or in the last `\\boxed{}`, whichever comes later; None if neither.

    A number that is merely mentioned is no answer.
    """
    marks = [(mark.start(), mark.group(1)) for mark in _MARKED.finditer(completion)]
    boxed = _last_boxed(completion)
    if boxed is not None:
        marks.append(boxed)
    return max(marks)[1].strip() if marks else None

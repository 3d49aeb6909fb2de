"""Escapes text from runs for Markdown."""

from __future__ import annotations

import re

SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$&])")
# At the start of a line these begin a list or underline a heading.
OPENING = re.compile(r"^(?:[-+=]|\d+(?=[.)](?:\s|$)))")


def line(text: object) -> str:
    """One line of prose: markup escaped, line breaks replaced by spaces."""
    escaped = cell(text).strip()
    opening = OPENING.match(escaped)
    if opening is None:
        return escaped
    end = opening.end() if escaped[0].isdigit() else 0
    return f"{escaped[:end]}\\{escaped[end:]}"


def cell(text: object) -> str:
    """Text of a table cell."""
    return SPECIAL.sub(r"\\\1", " ".join(str(text).split())) or " "


def fence(text: object) -> str:
    """A code block around `text`, with a fence longer than any run of backticks in it."""
    body = str(text)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}text\n{body}\n{marks}"

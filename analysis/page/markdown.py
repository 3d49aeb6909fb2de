"""Text from runs, made safe inside Markdown."""

from __future__ import annotations

import re

SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$&])")
# What begins a list or underlines a heading, at the start of a line alone.
OPENING = re.compile(r"^(?:[-+=]|\d+(?=[.)](?:\s|$)))")


def line(text: object) -> str:
    """One line of prose: marks and tags lose their meaning, line breaks become blanks."""
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
    """A code block around `text`, its fence longer than any run of backticks inside."""
    body = str(text)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}text\n{body}\n{marks}"

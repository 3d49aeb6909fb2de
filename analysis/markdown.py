"""Text from runs, made safe inside Markdown."""

from __future__ import annotations

import re

SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$])")


def line(text: object) -> str:
    """One line of prose: marks and tags lose their meaning, line breaks become blanks."""
    return SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def cell(text: object) -> str:
    """Text of a table cell."""
    return line(text) or " "


def fence(text: object) -> str:
    """A code block around `text`, its fence longer than any run of backticks inside."""
    body = str(text)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}text\n{body}\n{marks}"

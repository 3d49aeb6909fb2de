"""Tables as LaTeX in booktabs style: ASCII, with all text escaped."""

from __future__ import annotations

import re

import pandas as pd

from cppo_lab.analysis.page.tables import Table
from cppo_lab.analysis.safe_text import brief, visible

MOST_CHARACTERS = 300
_COMMANDS = {
    # The default font encoding prints other characters for these three.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u2212": "$-$",
    "\u2013": "--",
    "\u2014": "---",
    "\u00d7": r"$\times$",
    "\u202f": r"\,",
    "\u2026": r"\ldots{}",
    "\u00b7": r"$\cdot$",
}


def latex(table: Table) -> str:
    """The table for a document that loads the package booktabs."""
    shown = pd.DataFrame(
        [[_line(brief(cell.text, MOST_CHARACTERS)) for cell in row] for row in table.rows],
        columns=[_line(brief(header, MOST_CHARACTERS)) for header, _ in table.columns],
    )
    written = (
        shown.style.hide(axis="index")
        .format(escape="latex")
        .format_index(escape="latex", axis=1)
        .to_latex(
            hrules=True,
            column_format="".join("r" if numeric else "l" for _, numeric in table.columns),
            caption=_escaped(_line(table.caption)),
            label=f"tab:{table.name}",
        )
    )
    # After a line break LaTeX would read a bracket or a star as an argument.
    return _ascii(re.sub(r"^(?=[\[*])", "{}", written, flags=re.MULTILINE))


def _line(text: str) -> str:
    return visible(" ".join(text.split()))


def _ascii(text: str) -> str:
    """Typographic characters as commands, other non-ASCII characters as code points."""
    return "".join(
        _COMMANDS.get(character)
        or (character if character.isascii() else rf"\textbackslash{{}}u{ord(character):04x}")
        for character in text
    )


def _escaped(text: str) -> str:
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(character, character) for character in text)

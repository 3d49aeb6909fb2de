"""Tables as LaTeX in booktabs style, everything escaped, in ASCII."""

from __future__ import annotations

import pandas as pd

from analysis.tables import Table


def latex(table: Table) -> str:
    """What `table` shows, for a document that loads the package booktabs."""
    shown = pd.DataFrame(
        [[cell.text for cell in row] for row in table.rows],
        columns=[header for header, _ in table.columns],
    )
    written = (
        shown.style.hide(axis="index")
        .format(escape="latex")
        .format_index(escape="latex", axis=1)
        .to_latex(
            hrules=True,
            column_format="".join("r" if numeric else "l" for _, numeric in table.columns),
            caption=_escaped(table.caption),
            label=f"tab:{table.name}",
        )
    )
    return _ascii(written)


def _ascii(text: str) -> str:
    # Classic LaTeX knows no Unicode minus, dashes or times.
    for character, command in (("\u2212", "$-$"), ("\u2013", "--"), ("\u00d7", r"$\times$")):
        text = text.replace(character, command)
    return text


def _escaped(text: str) -> str:
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(character, character) for character in text)

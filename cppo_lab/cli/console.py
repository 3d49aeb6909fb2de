"""Printing: colour and tables on a terminal, plain lines elsewhere, JSON for scripts."""

from __future__ import annotations

import functools
import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


@functools.cache
def console() -> Console:
    """The console. Without a terminal, long lines are not wrapped."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=200)


@functools.cache
def error_console() -> Console:
    """The console of what is no result, where standard output has to be a document."""
    made = Console(highlight=False, stderr=True)
    return made if made.is_terminal else Console(highlight=False, stderr=True, width=200)


def print_json(content: Any) -> None:
    """One JSON document on standard output."""
    from cppo_lab.files import jsonable
    from cppo_lab.tracking.run_folder import jsonable_config

    print(json.dumps(jsonable(jsonable_config(content)), indent=2))


def table(title: str | Text, *columns: str | Text) -> Table:
    """A table in the lab's style. Markup in a `Text` is printed as text."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False
    )
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def plural(number: int, noun: str) -> str:
    """`1 run`, `2 runs`, `2 starting policies`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def seconds(value: float | None) -> str:
    """A duration in seconds, minutes or hours."""
    if value is None:
        return "?"
    if value < 90:
        return f"{value:.0f} s"
    if value < 5400:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h"


def count(value: float) -> str:
    """A large number in short: 12.3 k, 4.5 M, 6.7 G."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f}"

"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Hydra overrides: `key=value`, `group=choice`, `+new=…`.", show_default=False),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option("--config-dir", help="A folder with configuration groups of your own.", show_default=False),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugins",
        metavar="PATH|NAME",
        help="Load rules, tasks, engines and figures of your own: a Python file, a folder, or the name of an installed "
        "plug-in. Repeatable.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The output folder (default: `$CPPO_LAB_OUTPUT`, else `outputs`).",
        show_default=False,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Show runs together that are not comparable, every figure and table marked as such."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]

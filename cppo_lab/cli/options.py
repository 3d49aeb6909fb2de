"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cppo_lab.errors import UserError

SweepName = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP",
        help="The name of a sweep (`cppo-lab list sweeps`), a YAML file, or the first override of an ad-hoc sweep.",
        show_default=False,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        help="The name of an ad-hoc sweep, by which `plan`, `sweep`, `results` and `report` know it afterwards.",
        show_default=False,
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        metavar="METHOD",
        help="The method of an ad-hoc sweep that the others are compared with.",
        show_default=False,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label", metavar="TITLE", help="The title of an ad-hoc sweep's report.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Hydra overrides: `key=value`, `group=choice`, `+key=value`; in an ad-hoc sweep also `METHOD:key=value`, "
        "for one method.",
        show_default=False,
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option("--config-dir", help="A folder with your own configuration groups.", show_default=False),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugins",
        metavar="PATH|NAME",
        help="Your own rules, tasks, engines or figures: a Python file, a folder, or the name of an installed plug-in; "
        "repeatable.",
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
        "--force", help="Report runs that are not comparable, with a warning on every figure and table."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def all_overrides(
    overrides: Sequence[str] | None, output: Path | None, plugins: Sequence[str] | None
) -> list[str]:
    """The overrides of a command, with --output and --plugins among them. Loads the plug-ins."""
    from cppo_lab.config.overrides import quoted, with_plugins

    for each in overrides or []:
        if each.startswith(("executor=", "executor.")):
            raise UserError(f"{each}: only sweep, tune and reproduce start runs elsewhere; leave it out.")
    extra = [] if output is None else [f"paths.output={quoted(output)}"]
    return with_plugins(plugins or [], [*(overrides or []), *extra])

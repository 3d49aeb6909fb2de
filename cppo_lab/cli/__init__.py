"""The command line. Parses, delegates, prints; imports nothing heavy until a command needs it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cppo_lab import __version__
from cppo_lab.cli import commands
from cppo_lab.errors import UserError
from cppo_lab.interrupts import termination_as_interrupt

app = typer.Typer(
    name="cppo-lab",
    help="Find out which trust region to use when you train a language model by reinforcement learning.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First steps: **cppo-lab sweep quickstart**, then **cppo-lab report**. Every run is one command: "
    "**cppo-lab train algo=cppo seed=1**.",
)


class _Debug:
    on = False


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cppo-lab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _Debug.on = debug


commands.register(app)


def main() -> None:
    """The entry point: errors a user can act on are one sentence and exit code 2."""
    try:
        with termination_as_interrupt():
            app(prog_name="cppo-lab")
    except UserError as error:
        if _Debug.on:
            raise
        typer.secho(f"Error: {error}", err=True, fg="red")
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("Interrupted.", err=True, fg="yellow")
        sys.exit(130)
    except Exception as error:
        if _Debug.on:
            raise
        typer.secho(
            f"Error: {type(error).__name__}: {error} (cppo-lab --debug … shows where)", err=True, fg="red"
        )
        sys.exit(1)

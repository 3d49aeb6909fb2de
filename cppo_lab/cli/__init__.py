"""The command line: one module per command. Importing it imports nothing heavy."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cppo_lab import __version__
from cppo_lab.addresses import without_credentials
from cppo_lab.cli import (
    compare,
    config,
    doctor,
    eval,
    inspect,
    list,
    models,
    plan,
    report,
    reproduce,
    results,
    sweep,
    sync,
    train,
    tune,
    unsafe_keeps,
)
from cppo_lab.cli.mirrors import NOT_SENT, unsent_in_words
from cppo_lab.errors import UserError, printable
from cppo_lab.interrupts import termination_as_interrupt

app = typer.Typer(
    name="cppo-lab",
    help="Find out which trust region to use when training a language model with reinforcement learning.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="To start: **cppo-lab sweep quickstart**, then **cppo-lab report**. A single run: "
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
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _Debug.on = debug


# Hydra's overrides never start with a dash: nothing needs to be passed through.
app.command()(sweep.sweep)
app.command()(tune.tune)
app.command()(train.train)
app.command("eval")(eval.eval_)
app.command()(report.report)
app.command()(reproduce.reproduce)
app.command()(results.results)
app.command()(sync.sync)
app.command()(inspect.inspect)
app.command()(unsafe_keeps.unsafe_keeps)
app.command()(compare.compare)
app.command()(plan.plan)
app.command("list")(list.list_)
app.command()(config.config)
app.add_typer(models.app, name="models")
app.command()(doctor.doctor)


def _shown(error: Exception) -> str:
    return printable(without_credentials(str(error)))


def _say_unsent() -> bool:
    """Say what could not be sent; whether there was anything."""
    said = unsent_in_words()
    if said:
        typer.secho(said, err=True, fg="yellow")
    return bool(said)


def main() -> None:
    """The entry point. A UserError is printed as one sentence, with its exit code."""
    try:
        with termination_as_interrupt():
            app(prog_name="cppo-lab")
    except SystemExit as end:
        if _say_unsent() and not end.code:
            sys.exit(NOT_SENT)
        raise
    except UserError as error:
        if _Debug.on:
            raise
        typer.secho(f"Error: {_shown(error)}", err=True, fg="red")
        _say_unsent()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.secho("Interrupted.", err=True, fg="yellow")
        _say_unsent()
        sys.exit(130)
    except Exception as error:
        if _Debug.on:
            raise
        typer.secho(
            f"Error: {type(error).__name__}: {_shown(error)} (cppo-lab --debug … shows the traceback)",
            err=True,
            fg="red",
        )
        _say_unsent()
        sys.exit(1)

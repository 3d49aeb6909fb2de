"""Runs whose record is not what was written: said, or with `--repair` trained again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from cppo_lab.cli.console import console
from cppo_lab.errors import UserError, printable

if TYPE_CHECKING:
    from cppo_lab.tracking.run_folder import RunFolder

Repair = Annotated[
    bool,
    typer.Option(
        "--repair",
        help="Train runs whose logs, samples or run.json are not as they were written again, from the last good "
        "checkpoint.",
    ),
]


def readable(folders: Iterable[RunFolder]) -> list[RunFolder]:
    """The runs whose run.json can be read, or is not there yet; the others are named in a warning."""
    found = []
    for folder in folders:
        try:
            folder.info  # noqa: B018
        except UserError as error:
            typer.secho(f"Warning: {printable(str(error))} It is left out.", err=True, fg="yellow")
        else:
            found.append(folder)
    return found


def look_for_damage(folders: Iterable[RunFolder], repair: bool) -> bool:
    """Say which of these runs are damaged, and with `repair` make them ones to train; whether one stays damaged.

    What a run that goes on finds damaged stops that run, with the same remedy.
    """
    from cppo_lab.tracking.integrity import REMEDY, damage, forget_damaged

    stays = False
    for folder in folders:
        if folder.status is None:
            continue
        name = folder.path.name
        if repair and (found := forget_damaged(folder)):
            console().print(f"Repairing {name}: {found}.", style="yellow", markup=False, soft_wrap=True)
        elif (folder.status == "FINISHED" or not folder.is_readable) and (found := damage(folder)):
            stays = True
            said = f"Damaged: {name}: {found}. {REMEDY}."
            console().print(said, style="red", markup=False, soft_wrap=True)
    return stays

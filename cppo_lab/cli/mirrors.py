"""Opens and closes the mirrors of runs and sweeps in MLflow, and says last what could not be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cppo_lab.cli.console import console
from cppo_lab.errors import UserError

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig
    from cppo_lab.sweeps.sweep import Sweep
    from cppo_lab.tracking.mlflow_sync import NoMirror, RunMirror, SweepMirror
    from cppo_lab.tracking.run_folder import RunFolder

NOT_SENT = 4
"""The exit code of a command that has computed everything, of which MLflow lacks some."""

_UNSENT: dict[str, str] = {}
"""Names of runs and sweeps, each with the address of the store that did not take it."""


def open_run_mirror(config: RunConfig, folder: RunFolder) -> RunMirror | NoMirror:
    """The mirror of a run. Raises UserError when the store cannot be used."""
    from cppo_lab.tracking.mlflow_sync import NoMirror, RunMirror

    return RunMirror(config, folder) if config.tracking.enabled else NoMirror()


def open_sweep_mirror(planned: Sweep) -> SweepMirror | NoMirror:
    """The mirror of a sweep, whose sweep.json is brought up to date. Raises UserError when the store cannot be used."""
    from cppo_lab.tracking.mlflow_sync import NoMirror, SweepMirror

    tracking = planned.runs[0].config.tracking
    if not tracking.enabled:
        planned.write_manifest()
        return NoMirror()
    with console().status("Opening the MLflow store …"):
        return SweepMirror(planned, tracking)


def close_mirror(mirror: RunMirror | SweepMirror | NoMirror) -> None:
    """Send the rest, and remember what the store did not take."""
    mirror.close()
    _UNSENT.update(dict.fromkeys(mirror.unsent, mirror.address))


def catch_up(name: str, open_mirror: Callable[[], RunMirror | SweepMirror | NoMirror]) -> None:
    """Bring MLflow up to date with finished work, for which a store that cannot be used is no error."""
    try:
        close_mirror(open_mirror())
    except UserError as error:
        console().print(str(error), style="yellow", markup=False, soft_wrap=True)
        _UNSENT[name] = "its store"


def note_unsent(name: str, address: str) -> None:
    """Remember what the store at an address did not take."""
    _UNSENT[name] = address


def unsent_in_words() -> str | None:
    """The sentence for what this command could not send; None if it sent everything."""
    if not _UNSENT:
        return None
    names = sorted(_UNSENT)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"Not all was sent to MLflow at {next(iter(_UNSENT.values()))}: {shown}. Nothing is lost: "
        "cppo-lab sync --all sends it from the run folders."
    )

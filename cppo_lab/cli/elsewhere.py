"""A sweep that goes on elsewhere: detached from the terminal, or by an executor whose script is shown."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cppo_lab.cli.console import console, plural
from cppo_lab.errors import UserError

if TYPE_CHECKING:
    from cppo_lab.executors.settings import Local, Ray, Submitit
    from cppo_lab.sweeps.adhoc import Naming
    from cppo_lab.sweeps.sweep import Sweep


def own_arguments() -> list[str]:
    """The arguments of this command, which the same command repeats in the foreground."""
    return [each for each in sys.argv[1:] if each != "--detach"]


def refuse_two_starters(executor: Sequence[str], overrides: Sequence[str]) -> None:
    """Raise UserError for an executor together with one of Hydra's launchers."""
    from cppo_lab.sweeps.expansion import hydra_settings

    settings = hydra_settings(overrides)
    if executor and settings:
        raise UserError(
            f"{executor[0]}: has no effect with {settings[0]}, since Hydra's launcher starts the runs; give one of "
            "them."
        )


def show_script(
    executor: Local | Submitit | Ray,
    name: str,
    overrides: Sequence[str],
    config_dir: Path | None,
    naming: Naming,
) -> None:
    """The job script of a Slurm executor, for --dry-run."""
    from cppo_lab.executors.settings import Submitit

    if not isinstance(executor, Submitit):
        return
    from cppo_lab.executors.slurm import sbatch_script
    from cppo_lab.sweeps.jobs import jobs_for
    from cppo_lab.sweeps.sweep import find_sweep

    planned, _ = find_sweep(name, overrides, config_dir, naming)
    todo = jobs_for([run.config for run in planned.runs if run.folder.status != "FINISHED"])
    first = [job for job in todo if job.needs is None]
    what = "starting policy" if first and first[0].kind == "policy" else "run"
    console().print(f"\nThe first array, {plural(len(first), what)}, is submitted with this script:\n")
    script = sbatch_script(executor, planned.folder / executor.kind, planned.name, len(first))
    console().print(script, markup=False, highlight=False, soft_wrap=True)


def detach_sweep(planned: Sweep, overrides: Sequence[str], executor: Local | Submitit | Ray) -> None:
    """Check everything, then run the same command in a process that outlives this one."""
    from cppo_lab.cli.sweep_runs import check_runs, refuse_hydra

    refuse_hydra(planned, overrides)
    check_runs(planned, is_here=executor.kind == "local")
    log = planned.folder / "driver.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "cppo_lab", *own_arguments()],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    console().print(
        f"Sweep [bold]{planned.name}[/] goes on in process {process.pid}; its output is in {log}.",
        soft_wrap=True,
    )
    console().print("Watch it: cppo-lab list runs --watch" + _output_option(planned.output))
    console().print(f"Stop it: kill {process.pid}. The same command resumes it.")


def _output_option(output: Path) -> str:
    from cppo_lab.paths import output_root

    return "" if output == output_root() else f" -o {shlex.quote(str(output))}"

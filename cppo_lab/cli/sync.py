"""`sync`: MLflow's record of sweeps and runs, compared with their folders and mended."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cppo_lab.cli.console import console, plural, print_json
from cppo_lab.cli.mirrors import NOT_SENT
from cppo_lab.cli.options import AsJson, Output
from cppo_lab.errors import UserError

if TYPE_CHECKING:
    from cppo_lab.tracking.sync import Compared, Stores


def sync(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SWEEP|RUN|EVALUATION",
            help="Sweeps, runs on their own, and evaluations.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All tracked sweeps, runs and evaluations of the output folder.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell what differs; exit code 4 if anything.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URI",
            help="Compare with this store, tracked there before or not (default: where the runs were tracked).",
            show_default=False,
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", help="The experiment in the store.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """Make MLflow say what the folders of runs and evaluations say.

    Every metric of every step, the parameters, statuses and files are compared with what the store holds, and what is
    missing or wrong is sent. A run whose record cannot be mended, since MLflow forgets no value, is sent anew, and
    its old record deleted.

    Examples:

    * `cppo-lab sync quickstart`
    * `cppo-lab sync --all --check`
    * `cppo-lab sync --all --store http://tracking.example:5000`
    """
    from cppo_lab.paths import output_root
    from cppo_lab.quiet import quiet_libraries
    from cppo_lab.tracking.sync import Place, Stores

    if bool(names) == everything:
        raise UserError("sync: give the names of sweeps, runs or evaluations, or --all.")
    quiet_libraries()
    root = output or output_root()
    if not root.is_dir():
        raise UserError(f"{root}: no such output folder.")
    compared = []
    for each in _compared(
        names or [],
        root,
        Stores(root, Place(store, experiment), only_check=check),
        check,
        is_moved=bool(store),
    ):
        compared.append(each)
        if each.differences and not as_json:
            console().print(f"{each.name}: {'; '.join(each.differences)}", markup=False, soft_wrap=True)
    differing = [each for each in compared if each.differences]
    left = differing if check else [each for each in differing if each.failed]
    if as_json:
        print_json([{"name": each.name, "differences": list(each.differences)} for each in differing])
    else:
        what = "differ" if check else "mended"
        said = len(differing) if check else len(differing) - len(left)
        failed = f", {len(left)} could not be compared" if left and not check else ""
        console().print(f"{plural(len(compared), 'record')} compared, {said} {what}{failed}.")
    if left:
        sys.exit(NOT_SENT)


def _compared(
    names: list[str], root: Path, stores: Stores, check: bool, is_moved: bool
) -> Iterator[Compared]:
    from cppo_lab.eval.folder import EvaluationFolder
    from cppo_lab.eval.tracking import sync_evaluation, tracked_evaluations
    from cppo_lab.tracking.find_run import find_run
    from cppo_lab.tracking.sync import (
        RecordedSweep,
        guarded,
        is_tracked,
        recorded_sweeps,
        runs_alone,
        sync_run,
        sync_sweep,
    )

    if names:
        for name in names:
            if (root / "sweeps" / name / "sweep.json").is_file():
                sweep = RecordedSweep(root, name)
                yield from guarded(name, partial(sync_sweep, sweep, stores, only_check=check))
            elif (root / "evals" / name / "results.json").is_file():
                evaluation = EvaluationFolder(root / "evals" / name)
                yield from sync_evaluation(evaluation, stores, only_check=check)
            else:
                yield sync_run(find_run(root, name, key="SWEEP|RUN|EVALUATION"), stores, only_check=check)
        return
    sweeps = [sweep for sweep in recorded_sweeps(root) if is_moved or is_tracked(sweep)]
    for sweep in sweeps:
        yield from guarded(sweep.name, partial(sync_sweep, sweep, stores, only_check=check))
    for folder in runs_alone(root, sweeps):
        yield sync_run(folder, stores, only_check=check)
    for evaluation in tracked_evaluations(root):
        yield from sync_evaluation(evaluation, stores, only_check=check)

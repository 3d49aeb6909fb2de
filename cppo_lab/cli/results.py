"""`results`: the results of a sweep's finished runs, as a small CSV file to commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cppo_lab.cli.console import console, plural
from cppo_lab.cli.options import ConfigDir, Output, Overrides, Plugins, SweepName, all_overrides
from cppo_lab.errors import UserError

if TYPE_CHECKING:
    from cppo_lab.analysis.load.result_files import ResultFile
    from cppo_lab.analysis.load.study import Study
    from cppo_lab.sweeps.sweep import Sweep


def results(
    name: SweepName,
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option("--to", help="The folder of result files.")] = Path("results"),
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace committed rows of the same runs that have other numbers."),
    ] = False,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
) -> None:
    """Add the results of a sweep's finished runs to results/NAME.csv, one row per run.

    Existing rows stay. A run measured again with other numbers, on another machine or at another commit, gets a row
    of its own beside them.

    Examples:

    * `cppo-lab results fig5_mechanisms`
    * `cppo-lab results table1 scale=paper --to results`
    """
    write_result_file(name, all_overrides(overrides, output, plugins), folder, config_dir, replace)


def write_result_file(
    name: str, overrides: Sequence[str], folder: Path, config_dir: Path | None, replace: bool = False
) -> None:
    """Add the finished runs of the sweep to `folder`/NAME.csv, beside or (`replace`) instead of other rows of the runs.

    A sweep with overrides has a file of its own, named like its folder. Raises UserError, and writes nothing, when no
    run is finished, or when the file has rows of runs that the sweep does not plan.
    """
    from cppo_lab.cli.checked_sweep import checked_sweep

    sweep, _ = checked_sweep(name, overrides, config_dir)
    if not any(run.folder.status for run in sweep.runs):
        raise UserError(
            f"sweep {sweep.name}: none of its {len(sweep.runs)} runs is in {sweep.output}; run cppo-lab sweep first."
        )
    from cppo_lab.analysis.load.result_files import merged, read_results, rows_of, write_results
    from cppo_lab.analysis.load.scores import score_runs
    from cppo_lab.analysis.load.sources import load_study

    path = folder / f"{sweep.name}.csv"
    with _locked(path):
        refuse_unplanned_rows(sweep, path, read_results(path))
    sweep.write_manifest()
    study = load_study(sweep.output, sweep.name)
    measured = rows_of(study, score_runs(study)[0])
    _note_first_run(sweep, study)
    with _locked(path):
        results, added = merged(read_results(path), measured, replace=replace)
        if added.added or added.replaced:
            write_results(path, results)
    waiting = len(study.runs) - len(measured.rows)
    parts = [
        f"{path}: {plural(len(results.rows), 'run')}; {plural(added.added, 'row')} added from {sweep.output}"
    ]
    if added.reproduced:
        parts.append(f"{added.reproduced} gave the numbers of their committed rows")
    if added.replaced:
        parts.append(f"{added.replaced} replaced committed rows")
    if results.set_aside:
        parts.append(
            f"{plural(len(results.set_aside), 'row')} of runs measured more than once "
            f"{'is' if len(results.set_aside) == 1 else 'are'} kept and not used in reports"
        )
    if waiting:
        parts.append(f"{plural(waiting, 'run')} of the sweep not finished there")
    console().print("; ".join(parts) + ".", soft_wrap=True)


def _note_first_run(sweep: Sweep, study: Study) -> None:
    """Write into frozen claims when the first of their runs began."""
    from cppo_lab.sweeps.frozen_claims import note_first_run

    began = sorted(str(time) for time in study.runs["started_at"].dropna())
    if began and sweep.name == sweep.file.slug:
        note_first_run(sweep.file, began[0])


def refuse_unplanned_rows(sweep: Sweep, path: Path, known: ResultFile) -> None:
    """Raise UserError if the file at `path` has rows of runs that the sweep plans on no kind of machine."""
    from cppo_lab.config.identity import run_ids

    planned = set().union(*(run_ids(run.config) for run in sweep.runs))
    unplanned = [row for row in (*known.rows, *known.set_aside) if row["run_id"] not in planned]
    if not unplanned:
        return
    from cppo_lab.analysis.load.result_files import seeds_of

    first = unplanned[0]
    described = ", ".join(filter(None, (first["method"], first["panel"], seeds_of(first))))
    raise UserError(
        f"{path}: has {plural(len(unplanned), 'row')} of runs that sweep {sweep.name} does not plan, the first of them "
        f"{first['run_id']} ({described}); remove them, or choose another folder with --to."
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file against other commands. Raises UserError if it or its folder cannot be written."""
    from filelock import FileLock

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise UserError(f"--to {path.parent}: cannot be written ({reason}).") from error
    try:
        yield
    finally:
        lock.release()

"""`results`: what the finished runs of a sweep measured, as a small file to keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from cppo_lab.cli.asked_sweep import asked_sweep
from cppo_lab.cli.console import console, plural
from cppo_lab.config.identity import run_ids
from cppo_lab.errors import UserError
from cppo_lab.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from cppo_lab.analysis.load.result_files import ResultFile


def write_result_file(
    name: str, overrides: Sequence[str], folder: Path, config_dir: Path | None, replace: bool = False
) -> None:
    """Add the finished runs of the sweep to `folder`/NAME.csv, beside rows of the same runs measured elsewhere.

    With `replace` they take the place of such rows.

    A sweep with overrides is another one, and has a file of its own, named as its folder is. Raises UserError, and
    writes nothing, where none of its runs is done, or the file holds rows of runs that are not the sweep's.
    """
    sweep, _ = asked_sweep(name, overrides, config_dir)
    if not any(run.folder.status for run in sweep.runs):
        raise UserError(
            f"sweep {sweep.name}: {sweep.output} holds none of its {len(sweep.runs)} runs; do some first."
        )
    from cppo_lab.analysis.load.result_files import merged, read_results, rows_of, write_results
    from cppo_lab.analysis.load.sources import load_study
    from cppo_lab.analysis.summary import find

    path = folder / f"{sweep.name}.csv"
    with _alone_with(path):
        refuse_strangers(sweep, path, read_results(path))
    sweep.write_manifest()
    study = load_study(sweep.output, sweep.name)
    measured = rows_of(study, find(study))
    with _alone_with(path):
        results, added = merged(read_results(path), measured, replace=replace)
        if added.added or added.replaced:
            write_results(path, results)
    waiting = len(study.runs) - len(measured.rows)
    told = [
        f"{path}: {plural(len(results.rows), 'run')}; {plural(added.added, 'row')} added from {sweep.output}"
    ]
    if added.reproduced:
        told.append(f"{added.reproduced} gave the numbers of their committed rows")
    if added.replaced:
        told.append(f"{added.replaced} replaced committed rows")
    if results.set_aside:
        told.append(
            f"{plural(len(results.set_aside), 'row')} of runs measured more than once "
            f"{'is' if len(results.set_aside) == 1 else 'are'} kept and not used in reports"
        )
    if waiting:
        told.append(f"{plural(waiting, 'run')} of the sweep not done there")
    console().print("; ".join(told) + ".", soft_wrap=True)


def refuse_strangers(sweep: Sweep, path: Path, known: ResultFile) -> None:
    """Raise UserError where the file at `path` holds rows of runs that the sweep plans on no machine."""
    planned = set().union(*(run_ids(run.config) for run in sweep.runs))
    strangers = [row for row in (*known.rows, *known.set_aside) if row["run_id"] not in planned]
    if not strangers:
        return
    from cppo_lab.analysis.load.result_files import seeds_of

    first = strangers[0]
    told = ", ".join(filter(None, (first["method"], first["panel"], seeds_of(first))))
    raise UserError(
        f"{path}: holds {plural(len(strangers), 'row')} of runs that sweep {sweep.name} does not plan, first that of "
        f"{first['run_id']} ({told}); remove them, or give another folder with --to."
    )


@contextmanager
def _alone_with(path: Path) -> Iterator[None]:
    """Keep other commands from the file meanwhile. Raises UserError where it or its folder cannot be written."""
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

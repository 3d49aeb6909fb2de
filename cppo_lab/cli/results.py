"""`results`: what the finished runs of a sweep measured, as a small file to keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cppo_lab.cli.console import console, plural
from cppo_lab.errors import UserError
from cppo_lab.runs.sweeps import find_sweep


def write_result_file(name: str, overrides: Sequence[str], folder: Path, config_dir: Path | None) -> None:
    """Add the runs of the sweep that are done to `folder`/NAME.csv, in place of rows of the same runs.

    A sweep with overrides is another one, and has a file of its own, named as its folder is.
    """
    sweep, _ = find_sweep(name, overrides, config_dir)
    if not any(run.folder.status for run in sweep.runs):
        raise UserError(
            f"sweep {sweep.name}: {sweep.output} holds none of its {len(sweep.runs)} runs; do some first."
        )
    sweep.write_manifest()
    from analysis.findings import find
    from analysis.result_files import merged, read_results, rows_of, write_results
    from analysis.runs import load_study

    study = load_study(sweep.output, sweep.name)
    path = folder / f"{sweep.name}.csv"
    measured, known = rows_of(study, find(study)), read_results(path)
    results = merged(known, measured)
    write_results(path, results)
    waiting = len(study.runs) - len(measured.rows)
    console().print(
        f"{path}: {plural(len(results.rows), 'run')}, {len(measured.rows)} of them from {sweep.output}"
        + (f"; {plural(waiting, 'run')} of the sweep not done there." if waiting else "."),
        soft_wrap=True,
    )

"""`report`."""

from __future__ import annotations

from pathlib import Path

from cppo_lab.cli.console import console, print_json
from cppo_lab.errors import UserError
from cppo_lab.paths import output_root


def report_sweep(name: str | None, destination: Path | None, output: Path | None, as_json: bool) -> None:
    """Write the report of a sweep and say where it is."""
    from analysis.report import write_report
    from analysis.runs import NothingToReport

    try:
        files = write_report(output or output_root(), name, destination=destination)
    except NothingToReport as error:
        raise UserError(str(error)) from error
    if as_json:
        print_json(vars(files))
    else:
        console().print(f"Report: {files.html}")

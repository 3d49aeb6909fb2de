"""`report` and `compare`: a sweep's or chosen runs' report, as a page or on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from cppo_lab.cli.console import console, print_json, table
from cppo_lab.errors import UserError
from cppo_lab.paths import output_root

if TYPE_CHECKING:
    from analysis.findings import Findings
    from analysis.runs import Study
    from analysis.tables import Table

_MOST_CHARACTERS = 300
_VERDICT_COLUMNS = (
    "method",
    "n",
    "start",
    "final",
    "95% interval",
    "against baseline",
    "95% interval of difference",
    "verdict",
)


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


def show_verdict(name: str | None, output: Path | None, as_json: bool) -> None:
    """Print the verdict of a sweep, and write nothing."""
    from analysis.tables import results_table

    study, findings = _found(output or output_root(), name, None)
    if as_json:
        print_json(results_table(findings).frame().to_dict("records"))
    else:
        _print_verdict(study, findings)


def compare_runs(names: Sequence[str], output: Path | None, as_json: bool) -> None:
    """Print how chosen runs differ: in their configuration, and in what came of it."""
    from analysis.run_tables import differences_table
    from analysis.tables import results_table
    from cppo_lab.runs.find import find_run

    root = output or output_root()
    folders = [find_run(root, name, key="RUN").path for name in dict.fromkeys(names)]
    if len(folders) < 2:
        raise UserError("compare: takes two or more different runs; cppo-lab list runs names them.")
    study, findings = _found(root, None, folders)
    if as_json:
        print_json(results_table(findings).frame().to_dict("records"))
        return
    differences = differences_table(study)
    if differences is not None:
        _print_table(differences, [header for header, _ in differences.columns], "What differs")
    _print_verdict(study, findings)


def check_aa(name: str | None, output: Path | None, as_json: bool) -> None:
    """Split every method's runs in two, and print whether a difference is found where there is none."""
    import numpy as np

    from analysis.aa import SPLITS, check_methods
    from analysis.numbers import percent, points, points_range

    study, findings = _found(output or output_root(), name, None)
    checks = check_methods(findings, np.random.default_rng(0))
    if as_json:
        print_json([vars(check) | {"verdict": check.verdict} for check in checks])
        return
    shown = table(
        _plain(f"{study.title}: each method against itself", "bold"),
        *("method", "n", "half against half", "95% interval", "verdict", f"found in {SPLITS} random splits"),
    )
    for check in checks:
        difference = check.difference
        shown.add_row(
            _plain(check.label),
            str(check.runs),
            points(difference.mean if difference else None),
            points_range(difference),
            check.verdict,
            percent(check.share_found),
        )
    console().print(shown)
    console().print("A sound procedure finds a difference in about 5% of the splits, or fewer.")


def _found(root: Path, name: str | None, folders: Sequence[Path] | None) -> tuple[Study, Findings]:
    from analysis.findings import find
    from analysis.runs import NothingToReport, load_study

    try:
        study = load_study(root, name, folders)
    except NothingToReport as error:
        raise UserError(str(error)) from error
    return study, find(study)


def _print_verdict(study: Study, findings: Findings) -> None:
    from analysis.tables import results_table
    from analysis.visible import visible
    from analysis.words import caveats, verdict

    _print_table(results_table(findings), _VERDICT_COLUMNS, study.title)
    for panel in findings.panels:
        heading = f"{panel.panel}: " if panel.panel else ""
        console().print(visible(heading + " ".join(verdict(panel))), markup=False)
    for caveat in caveats(study, findings):
        console().print(visible(caveat), style="dim", markup=False)


def _print_table(content: Table, columns: Sequence[str], title: str) -> None:
    """Print some columns of a table; what looks like rich's markup in it is text too."""
    headers = [header for header, _ in content.columns]
    shown = table(_plain(title, "bold"), *map(_plain, columns))
    for row in content.rows:
        cells = dict(zip(headers, row, strict=True))
        shown.add_row(*(_plain(cells[column].text) for column in columns))
    console().print(shown)


def _plain(text: str, style: str = "") -> Text:
    from analysis.visible import brief, visible

    return Text(visible(brief(text, _MOST_CHARACTERS)), style)

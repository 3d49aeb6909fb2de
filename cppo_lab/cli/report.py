"""`report`: the results of sweeps, of chosen runs or of an MLflow experiment, as a page or on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cppo_lab.cli.console import console, print_json, table
from cppo_lab.cli.options import AsJson, Force, Output, Plugins
from cppo_lab.errors import UserError, one_of
from cppo_lab.paths import output_root
from cppo_lab.plugins import load_plugins

if TYPE_CHECKING:
    from cppo_lab.analysis.load.study import Study
    from cppo_lab.analysis.page.tables import Table
    from cppo_lab.analysis.summary import Summary

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
_CONTROL_COLUMNS = (
    "method",
    "best setting",
    "seeds",
    "at one rate",
    "each at its best",
    "95% interval each at its best",
    "credited",
    "verdict",
)


@dataclass(frozen=True)
class Request:
    """What to report: sweeps or runs in `output` or in an MLflow experiment; the latest sweep by default."""

    output: Path
    sweeps: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    mlflow: str | None = None
    experiment: str | None = None
    force: bool = False

    def study(self) -> Study:
        """Read it. Raises UserError where there is nothing to read, or runs are not comparable."""
        from cppo_lab.analysis.load.comparability import NotComparable

        is_of_server = self.mlflow is not None or self.experiment is not None
        try:
            return self._of_server() if is_of_server else self._of_folder()
        except NotComparable as error:
            raise UserError(
                f"{error} --force reports them anyway, with a warning on every figure."
            ) from error

    def _of_folder(self) -> Study:
        from cppo_lab.analysis.load.sources import load_study

        folders = _folders(self.output, self.runs, "--run") if self.runs else None
        return load_study(self.output, self.sweeps or None, folders, force=self.force)

    def _of_server(self) -> Study:
        from cppo_lab.analysis.load.mlflow_runs import Selection, load_experiment
        from cppo_lab.tracking.store_address import default_experiment, tracking_uri

        uri = tracking_uri(self.mlflow, self.output)
        wanted = Selection(uri, self.experiment or default_experiment(), self.sweeps, self.runs)
        with console().status(f"Reading the runs of {wanted.experiment} at {wanted.address} …"):
            return load_experiment(wanted, self.output / "remote", force=self.force)


def report(
    sweeps: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SWEEP",
            help="Sweeps to report, joined if there are several (default: the latest).",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="RUN", help="A run to report, by name or ID; repeatable.", show_default=False
        ),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(
            "--mlflow",
            metavar="URI",
            help="Read an MLflow store (default with --experiment: `$MLFLOW_TRACKING_URI`, else the output folder's).",
            show_default=False,
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            "--experiment",
            metavar="NAME",
            help="Its experiment (default with --mlflow: `cppo-lab`); SWEEP and --run select among its runs.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    destination: Annotated[
        Path | None,
        typer.Option(
            "--to", help="The folder of the report (default: `OUTPUT/reports/SWEEP`).", show_default=False
        ),
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(
            "--axis",
            metavar="AXIS",
            help="What accuracy is drawn over: steps, updates, tokens, flops, time or kl (default: steps); the page "
            "lets you choose as well.",
            show_default=False,
        ),
    ] = None,
    all_panels: Annotated[
        bool,
        typer.Option(
            "--all-panels",
            help="In a sweep over the learning rate, draw the figures at every rate, not only at the default one.",
        ),
    ] = False,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Print the results and verdicts, and write no report.")
    ] = False,
    aa: Annotated[
        bool,
        typer.Option(
            "--aa", help="A/A test: compare each method with itself, where there is no difference to find."
        ),
    ] = False,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Write a report of sweeps, runs or an MLflow experiment: HTML, Markdown, figures and tables.

    Examples:

    * `cppo-lab report`
    * `cppo-lab report quickstart --to my-report`
    * `cppo-lab report quickstart quickstart-0a1b2c`
    * `cppo-lab report --run cppo-0123456789ab --run grpo-ba9876543210`
    * `cppo-lab report --mlflow http://localhost:5000 --experiment cppo-lab`
    * `cppo-lab report quickstart --axis flops`
    * `cppo-lab report quickstart --terminal`
    """
    load_plugins(plugins or [])
    if terminal and aa:
        raise UserError("--terminal, --aa: choose one of them.")
    if destination is not None and (terminal or aa):
        raise UserError(f"--to {destination}: has no effect with --terminal or --aa, which write nothing.")
    if axis is not None and (terminal or aa):
        raise UserError(f"--axis {axis}: has no effect with --terminal or --aa, which draw nothing.")
    if all_panels and (terminal or aa):
        raise UserError("--all-panels: has no effect with --terminal or --aa, which draw nothing.")
    request = Request(
        output or output_root(), tuple(sweeps or ()), tuple(runs or ()), mlflow, experiment, force
    )
    if aa:
        check_aa(request, as_json)
    elif terminal:
        show_verdict(request, as_json)
    else:
        write(request, destination, as_json, axis, all_panels=all_panels)


def write(
    request: Request,
    destination: Path | None,
    as_json: bool,
    axis: str | None = None,
    *,
    all_panels: bool = False,
) -> None:
    """Write the report and print its path."""
    from cppo_lab.analysis.page.report import write_study
    from cppo_lab.analysis.spent import AXES, DEFAULT_AXIS

    if axis is not None and axis not in AXES:
        raise one_of("--axis", axis, AXES)
    study = request.study()
    folder = destination or request.output / "reports" / study.name
    files = write_study(study, folder, axis=axis or DEFAULT_AXIS, all_panels=all_panels)
    if as_json:
        print_json(vars(files))
        return
    console().print(f"Report: {files.html}", soft_wrap=True)
    if study.mark:
        _warn(study)


def show_verdict(request: Request, as_json: bool) -> None:
    """Print the results and verdicts."""
    study, summary = _found(request)
    if as_json:
        _print_results(study, summary)
    else:
        _print_verdict(study, summary)


def compare_runs(names: Sequence[str], output: Path, force: bool, as_json: bool) -> None:
    """Print how runs differ in configuration and results."""
    from cppo_lab.analysis.load.mask_agreement import mask_agreement_sentences
    from cppo_lab.analysis.page.run_tables import differences_table
    from cppo_lab.analysis.safe_text import visible

    if len({folder.resolve() for folder in _folders(output, names, "RUN")}) < 2:
        raise UserError("compare: needs at least two different runs; cppo-lab list runs lists them.")
    study, summary = _found(Request(output, runs=tuple(names), force=force))
    if as_json:
        _print_results(study, summary)
        return
    differences = differences_table(study)
    if differences is not None:
        _print_table(differences, [header for header, _ in differences.columns], "What differs")
    for sentence in mask_agreement_sentences(study):
        console().print(visible(sentence), markup=False, soft_wrap=True)
    _print_verdict(study, summary)


def check_aa(request: Request, as_json: bool) -> None:
    """A/A test: split each method's runs in two halves, and print whether they are found to differ."""
    import numpy as np

    from cppo_lab.analysis.aa import SPLITS, check_methods
    from cppo_lab.analysis.formatting import percent, points, points_range

    study, summary = _found(request)
    checks = check_methods(summary, np.random.default_rng(0))
    if as_json:
        print_json([vars(check) | {"verdict": check.verdict} for check in checks])
        return
    if study.mark:
        _warn(study)
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
    console().print("A valid procedure finds a difference in at most about 5% of the splits.")


def _folders(output: Path, names: Sequence[str], key: str) -> list[Path]:
    from cppo_lab.tracking.find_run import find_run

    return [find_run(output, name, key=key).path for name in dict.fromkeys(names)]


def _found(request: Request) -> tuple[Study, Summary]:
    from cppo_lab.analysis.summary import summarise

    study = request.study()
    return study, summarise(study)


def _warn(study: Study) -> None:
    from cppo_lab.analysis.method_notes import warning

    console().print(warning(study), style="red", markup=False)


def _print_results(study: Study, summary: Summary) -> None:
    from cppo_lab.analysis.page.tables import results_table

    print_json(results_table(summary).marked(study.mark).frame().to_dict("records"))


def _print_verdict(study: Study, summary: Summary) -> None:
    from cppo_lab.analysis.method_notes import caveats
    from cppo_lab.analysis.page.rates_table import rates_table
    from cppo_lab.analysis.safe_text import visible
    from cppo_lab.analysis.verdict_text import claim_sentence
    from cppo_lab.analysis.verdicts import SINGLE_RATES, verdicts

    if study.mark:
        _warn(study)
    at_rates = rates_table(summary)
    _print_first_table(study, summary, is_over_rates=at_rates is not None)
    for panel, sentences in verdicts(study, summary):
        heading = f"{panel}: " if panel else ""
        console().print(visible(heading + " ".join(sentences)), markup=False)
    for test in summary.claims:
        console().print(visible(claim_sentence(test)), markup=False)
    for caveat in caveats(study, summary):
        console().print(visible(caveat), style="dim", markup=False)
    if at_rates is not None:
        _print_table(at_rates, [header for header, _ in at_rates.columns], SINGLE_RATES)


def _print_first_table(study: Study, summary: Summary, is_over_rates: bool) -> None:
    """What the verdict rests on: each method at its best, or its results."""
    from cppo_lab.analysis.page.step_size_tables import control_table
    from cppo_lab.analysis.page.tables import results_table

    if is_over_rates and summary.step_size is not None:
        shown = control_table(summary.step_size)
        has_panels = shown.columns[0][0] == "panel"
        _print_table(shown, [*(["panel"] if has_panels else []), *_CONTROL_COLUMNS], study.title)
        return
    _print_table(results_table(summary), _VERDICT_COLUMNS, study.title)


def _print_table(content: Table, columns: Sequence[str], title: str) -> None:
    """Print some columns of a table. Rich's markup in it is printed as text."""
    headers = [header for header, _ in content.columns]
    shown = table(_plain(title, "bold"), *map(_plain, columns))
    for row in content.rows:
        cells = dict(zip(headers, row, strict=True))
        shown.add_row(*(_plain(cells[column].text) for column in columns))
    console().print(shown)


def _plain(text: str, style: str = "") -> Text:
    from cppo_lab.analysis.safe_text import brief, visible

    return Text(visible(brief(text, _MOST_CHARACTERS)), style)

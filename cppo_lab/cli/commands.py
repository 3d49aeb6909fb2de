"""The commands and their options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cppo_lab.cli.eval_command import evaluate
from cppo_lab.cli.options import AsJson, ConfigDir, Force, Output, Overrides, Plugins
from cppo_lab.errors import UserError
from cppo_lab.plugins import load_plugins


class Listed(StrEnum):
    """What `list` can list."""

    methods = "methods"
    models = "models"
    tasks = "tasks"
    sweeps = "sweeps"
    runs = "runs"


def _request(overrides: list[str] | None, output: Path | None, plugins: list[str] | None) -> list[str]:
    """The overrides, with what --output and --plugins say as overrides."""
    from cppo_lab.config.overrides import quoted, with_plugins

    extra = [] if output is None else [f"paths.output={quoted(output)}"]
    return with_plugins(plugins or [], [*(overrides or []), *extra])


def sweep(
    name: Annotated[
        str,
        typer.Argument(
            help="A sweep of the lab (`cppo-lab list sweeps`), a YAML file, or the first override."
        ),
    ],
    overrides: Overrides = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Runs at a time (default: as many as have cores for their threads; one on a GPU).",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would run.")] = False,
    report: Annotated[bool, typer.Option(help="Write the report at the end.")] = True,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
) -> None:
    """Do every run of a sweep that is not done yet, several at a time.

    Examples:

    * `cppo-lab sweep quickstart`
    * `cppo-lab sweep quickstart regime=mismatch 'seed=range(0,5)'`
    * `cppo-lab sweep algo=grpo,cppo trainer.lr=2e-4,4e-4 'seed=range(0,3)'`
    * `cppo-lab sweep quickstart hydra/launcher=joblib`
    """
    from cppo_lab.cli.sweep import refuse_jobs, run_sweep

    refuse_jobs(jobs, [name, *(overrides or [])])
    if dry_run:
        from cppo_lab.cli.plan import show_plan

        show_plan(name, _request(overrides, output, plugins), config_dir, as_json=False, jobs=jobs)
        return
    run_sweep(name, _request(overrides, output, plugins), config_dir, jobs, report)


def results(
    name: Annotated[
        str, typer.Argument(help="A sweep of the lab, or a YAML file, some of whose runs are done.")
    ],
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

    Rows that are there already stay. A run measured again with other numbers, on another machine or at another
    commit, gets a row of its own beside them.

    Examples:

    * `cppo-lab results fig5_mechanisms`
    * `cppo-lab results table1 scale=paper --to results`
    """
    from cppo_lab.cli.results import write_result_file

    write_result_file(name, _request(overrides, output, plugins), folder, config_dir, replace)


def train(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
) -> None:
    """Do one run, or what is left of it.

    Examples:

    * `cppo-lab train algo=cppo seed=1`
    * `cppo-lab train algo=dppo_tv model=m task.steps=8 trainer.lr=2e-4`
    * `cppo-lab train task=gsm8k task.path=train.jsonl trainer.steps=3`
    * `cppo-lab train recipe=qwen3_1.7b_base algo=dppo_topk_tv`
    """
    from cppo_lab.cli.train import train_one

    train_one(_request(overrides, output, plugins), config_dir)


def report(
    sweeps: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SWEEP",
            help="Sweeps that were run, joined where there are several (default: the latest).",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="RUN", help="A run, by name or ID; repeatable.", show_default=False),
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
            help="The experiment in it (default with --mlflow: `cppo-lab`); SWEEP and --run choose among its runs.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    destination: Annotated[
        Path | None,
        typer.Option("--to", help="Where to write it (default: `OUTPUT/reports/SWEEP`).", show_default=False),
    ] = None,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Print the verdict as a table, and write no report.")
    ] = False,
    aa: Annotated[
        bool, typer.Option("--aa", help="Compare every method with itself: no difference must come out.")
    ] = False,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Turn sweeps, chosen runs or an MLflow experiment into a report: a page, Markdown, figures and tables.

    Examples:

    * `cppo-lab report`
    * `cppo-lab report quickstart --to my-report`
    * `cppo-lab report quickstart quickstart-0a1b2c`
    * `cppo-lab report --run cppo-0123456789ab --run grpo-ba9876543210`
    * `cppo-lab report --mlflow http://localhost:5000 --experiment cppo-lab`
    * `cppo-lab report quickstart --terminal`
    """
    from cppo_lab.cli.report import Request, check_aa, show_verdict, write
    from cppo_lab.paths import output_root

    load_plugins(plugins or [])
    if terminal and aa:
        raise UserError("--terminal, --aa: give one of them.")
    if destination is not None and (terminal or aa):
        raise UserError(f"--to {destination}: nothing is written with --terminal or --aa.")
    request = Request(
        output or output_root(), tuple(sweeps or ()), tuple(runs or ()), mlflow, experiment, force
    )
    if aa:
        check_aa(request, as_json)
    elif terminal:
        show_verdict(request, as_json)
    else:
        write(request, destination, as_json)


def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more runs, by name or ID.")],
    force: Force = False,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Show how runs differ: in their configuration, and in what came of it.

    Example: `cppo-lab compare cppo-0123456789ab grpo-ba9876543210`
    """
    from cppo_lab.cli.report import compare_runs
    from cppo_lab.paths import output_root

    load_plugins(plugins or [])
    compare_runs(runs, output or output_root(), force, as_json)


def inspect(
    run: Annotated[str, typer.Argument(help="A run, by name or ID (`cppo-lab list runs`).")],
    step: Annotated[
        int | None,
        typer.Option(min=1, help="Training step (default: the last recorded one).", show_default=False),
    ] = None,
    problem: Annotated[
        int | None, typer.Option(min=0, help="Only this problem of the step, from 0.", show_default=False)
    ] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="Only wrong responses.")] = False,
    masked: Annotated[bool, typer.Option("--masked", help="Only responses with masked tokens.")] = False,
    most: Annotated[int, typer.Option("--most", "-n", min=1, help="How many to show.")] = 4,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Show sampled responses of a run, each token coloured by what the method decided.

    Examples:

    * `cppo-lab inspect cppo-0123456789ab --masked`
    * `cppo-lab inspect 0123456789ab --step 8 --problem 0 --wrong`
    """
    from cppo_lab.cli.inspect import Wish, inspect_run

    inspect_run(run, Wish(step, problem, wrong, masked, most), output, as_json)


def plan(
    name: Annotated[str, typer.Argument(help="A sweep of the lab, a YAML file, or the first override.")],
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Show what a sweep would run: each run's overrides and state, tokens, updates, estimated time and memory.

    Example: `cppo-lab plan quickstart 'seed=range(0,5)'`
    """
    from cppo_lab.cli.plan import show_plan

    show_plan(name, _request(overrides, output, plugins), config_dir, as_json)


def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.")],
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--diff", help="methods: print only the coordinates in which two differ.", show_default=False
        ),
    ] = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """List the methods, models, tasks and sweeps to choose from, or the runs that were done.

    Examples:

    * `cppo-lab list methods`
    * `cppo-lab list methods --diff dppo_topk_tv cppo`
    * `cppo-lab list runs --json`
    """
    from cppo_lab.cli.listing import show_list

    load_plugins(plugins or [])
    show_list(what.value, diff, config_dir, output, as_json)


def config(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Print the resolved, validated configuration of a run, with its identity.

    Example: `cppo-lab config algo=cppo regime=mismatch`
    """
    from cppo_lab.cli.show_config import show_config

    show_config(_request(overrides, output, plugins), config_dir, as_json)


def doctor(plugins: Plugins = None, output: Output = None, as_json: AsJson = False) -> None:
    """Check versions, device, extras, plug-ins, writable folders and the tracking store.

    Example: `cppo-lab doctor`
    """
    from cppo_lab.cli.doctor import examine

    examine(plugins or [], output, as_json)


def register(app: typer.Typer) -> None:
    """Add all commands to the application."""
    # Hydra's overrides may start with a tilde or a plus, never with a dash: nothing needs to be passed through.
    app.command()(sweep)
    app.command()(train)
    app.command("eval")(evaluate)
    app.command()(report)
    app.command()(results)
    app.command()(inspect)
    app.command()(compare)
    app.command()(plan)
    app.command("list")(list_)
    app.command()(config)
    app.command()(doctor)

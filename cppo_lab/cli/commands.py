"""The commands and their options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Hydra overrides: `key=value`, `group=choice`, `+new=…`.", show_default=False),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option("--config-dir", help="A folder with configuration groups of your own.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The output folder (default: `$CPPO_LAB_OUTPUT`, else `outputs`).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]


class Listed(StrEnum):
    """What `list` can list."""

    methods = "methods"
    models = "models"
    tasks = "tasks"
    sweeps = "sweeps"
    runs = "runs"


def _with_output(overrides: list[str] | None, output: Path | None) -> list[str]:
    # Quoted, since a path may hold characters of Hydra's grammar.
    extra = [] if output is None else ["paths.output='{}'".format(str(output).replace("'", "\\'"))]
    return [*(overrides or []), *extra]


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
    output: Output = None,
) -> None:
    """Do every run of a sweep that is not done yet, several at a time.

    Examples:

    * `cppo-lab sweep quickstart`
    * `cppo-lab sweep quickstart regime=mismatch 'seed=range(0,5)'`
    * `cppo-lab sweep algo=grpo,cppo trainer.lr=2e-4,4e-4 'seed=range(0,3)'`
    * `cppo-lab sweep quickstart hydra/launcher=joblib`
    """
    if dry_run:
        from cppo_lab.cli.plan import show_plan

        show_plan(name, _with_output(overrides, output), config_dir, as_json=False)
        return
    from cppo_lab.cli.sweep import run_sweep

    run_sweep(name, _with_output(overrides, output), config_dir, jobs, report)


def train(overrides: Overrides = None, config_dir: ConfigDir = None, output: Output = None) -> None:
    """Do one run, or what is left of it.

    Examples:

    * `cppo-lab train algo=cppo seed=1`
    * `cppo-lab train algo=dppo_tv model=m task.steps=8 trainer.lr=2e-4`
    * `cppo-lab train task=gsm8k task.path=train.jsonl trainer.steps=3`
    """
    from cppo_lab.cli.train import train_one

    train_one(_with_output(overrides, output), config_dir)


def evaluate(
    task: Annotated[str, typer.Argument(help="The task: `gsm8k` or `chain`.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model folder in Hugging Face format, or a hub id.")
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", help="A local JSONL or Parquet file instead of the hub.", show_default=False),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="The revision of a hub model.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first problems.", show_default=False)
    ] = None,
    greedy: Annotated[bool, typer.Option(help="Greedy decoding; else sampled at temperature 1.")] = True,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length limit of a response in tokens.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Problems sampled at a time.")] = 64,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Difficulty of the `chain` task (default: 4).", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Sample and grade a task's test problems with a model.

    Examples:

    * `cppo-lab eval gsm8k --model Qwen/Qwen3-0.6B --limit 100`
    * `cppo-lab eval gsm8k --model outputs/runs/RUN/checkpoints/step_000012 --data test.jsonl --json`
    """
    from cppo_lab.cli.evaluate import EvaluationRequest, evaluate_model

    evaluate_model(
        EvaluationRequest(
            task=task,
            model=model,
            data=data,
            revision=revision,
            limit=limit,
            greedy=greedy,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            steps=steps,
            device=device,
        ),
        output,
        as_json,
    )


def report(
    name: Annotated[
        str | None, typer.Argument(help="A sweep that was run (default: the latest).", show_default=False)
    ] = None,
    destination: Annotated[
        Path | None,
        typer.Option("--to", help="Where to write it (default: `OUTPUT/reports/SWEEP`).", show_default=False),
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Turn a sweep's runs into a report: a page, Markdown, figures and tables.

    Examples:

    * `cppo-lab report`
    * `cppo-lab report quickstart --to my-report`
    """
    from cppo_lab.cli.report import report_sweep

    report_sweep(name, destination, output, as_json)


def plan(
    name: Annotated[str, typer.Argument(help="A sweep of the lab, a YAML file, or the first override.")],
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Show what a sweep would run: each run's overrides and state, tokens, updates, estimated time and memory.

    Example: `cppo-lab plan quickstart 'seed=range(0,5)'`
    """
    from cppo_lab.cli.plan import show_plan

    show_plan(name, _with_output(overrides, output), config_dir, as_json)


def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.")],
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--diff", help="methods: print only the coordinates in which two differ.", show_default=False
        ),
    ] = None,
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

    show_list(what.value, diff, output, as_json)


def config(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Print the resolved, validated configuration of a run, with its identity.

    Example: `cppo-lab config algo=cppo regime=mismatch`
    """
    from cppo_lab.cli.show_config import show_config

    show_config(_with_output(overrides, output), config_dir, as_json)


def doctor(output: Output = None, as_json: AsJson = False) -> None:
    """Check versions, device, extras, writable folders and the tracking store.

    Example: `cppo-lab doctor`
    """
    from cppo_lab.cli.doctor import examine

    examine(output, as_json)


def register(app: typer.Typer) -> None:
    """Add all commands to the application."""
    # Hydra's overrides may start with a tilde or a plus, never with a dash: nothing needs to be passed through.
    app.command()(sweep)
    app.command()(train)
    app.command("eval")(evaluate)
    app.command()(report)
    app.command()(plan)
    app.command("list")(list_)
    app.command()(config)
    app.command()(doctor)

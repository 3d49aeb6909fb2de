"""`sweep`: the options of the command, and what they mean together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cppo_lab.cli.console import console
from cppo_lab.cli.damaged import Repair
from cppo_lab.cli.options import (
    Baseline,
    ConfigDir,
    Label,
    Name,
    Output,
    Overrides,
    Plugins,
    SweepName,
    all_overrides,
)
from cppo_lab.errors import UserError

if TYPE_CHECKING:
    from cppo_lab.executors.settings import Local, Ray, Submitit
    from cppo_lab.sweeps.adhoc import Naming
    from cppo_lab.sweeps.failures import FailurePolicy


def sweep(
    name: SweepName,
    overrides: Overrides = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Runs in parallel (default: as many as the cores allow, or one on a GPU).",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    report: Annotated[bool, typer.Option(help="Write the report at the end.")] = True,
    detach: Annotated[
        bool, typer.Option("--detach", help="Go on in the background, and return once everything is checked.")
    ] = False,
    until_resolved: Annotated[
        bool,
        typer.Option(
            "--until-resolved",
            help="Add seeds, four at a time, to the contrasts with the baseline that are not settled yet.",
        ),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="With --until-resolved: differences in accuracy that count as none, in points (default: 3).",
            show_default=False,
        ),
    ] = None,
    max_seeds: Annotated[
        int | None,
        typer.Option(
            help="With --until-resolved: the most seeds (default: 24). Choose it before the first run.",
            show_default=False,
        ),
    ] = None,
    fail_fast: Annotated[
        bool,
        typer.Option(
            "--fail-fast",
            help="Start no further run once one has failed; those that are training go on to their end.",
        ),
    ] = False,
    retry_failed: Annotated[
        str | None,
        typer.Option(
            "--retry-failed",
            metavar="N|never",
            help="Try a run that fails again, up to N times, from its last checkpoint; never: leave alone also what "
            "failed in an earlier command (default: try those once).",
            show_default=False,
        ),
    ] = None,
    keep_diverged: Annotated[
        bool,
        typer.Option(
            "--keep-diverged", help="Take a diverged run as a result: no failure, and never tried again."
        ),
    ] = False,
    repair: Repair = False,
    adhoc_name: Name = None,
    baseline: Baseline = None,
    label: Label = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
) -> None:
    """Run all unfinished runs of a sweep in parallel, then write its report.

    Examples:

    * `cppo-lab sweep quickstart`
    * `cppo-lab sweep quickstart regime=mismatch 'seed=range(0,5)'`
    * `cppo-lab sweep algo=grpo,cppo trainer.lr=2e-4,4e-4 'seed=range(0,3)' --name rates --baseline grpo`
    * `cppo-lab sweep algo=grpo,cppo cppo:algo.trust_region.delta=0.1,0.2 'seed=range(0,3)'`
    * `cppo-lab sweep quickstart trainer.lr=1e-4 --until-resolved --max-seeds 16`
    * `cppo-lab sweep quickstart executor=submitit executor.partition=gpu executor.gpus=1 --detach`
    * `cppo-lab sweep quickstart hydra/launcher=joblib`
    """
    refuse_jobs(jobs, [name, *(overrides or [])])
    from cppo_lab.cli.checked_sweep import checked_sweep
    from cppo_lab.cli.elsewhere import detach_sweep, refuse_two_starters, show_script
    from cppo_lab.cli.sweep_runs import run_sweep
    from cppo_lab.cli.until_resolved import plan_growing, sweep_until_resolved, until
    from cppo_lab.executors.settings import executor_settings, split_executor
    from cppo_lab.sweeps.adhoc import Naming
    from cppo_lab.sweeps.failures import failure_policy

    own, rest = split_executor(overrides or [])
    given = all_overrides(rest, output, plugins)
    executor, naming = executor_settings(own, config_dir), Naming(adhoc_name, baseline, label)
    refuse_two_starters(own, given)
    asked = until(until_resolved, margin, max_seeds)
    growing = None if asked is None else plan_growing(name, given, config_dir, naming, asked)
    if growing is not None:
        given = list(growing.overrides)
    if dry_run:
        from cppo_lab.cli.plan import show_plan

        show_plan(name, given, config_dir, as_json=False, jobs=jobs, naming=naming)
        if growing is not None:
            console().print(growing.in_words(), soft_wrap=True)
        show_script(executor, name, given, config_dir, naming)
        _show_backend(name, given, config_dir, naming)
        return
    if detach:
        planned = growing.sweep if growing else checked_sweep(name, given, config_dir, naming)[0]
        detach_sweep(planned, given, executor)
        return
    policy = failure_policy(retry_failed, fail_fast=fail_fast, keep_diverged=keep_diverged)
    _refuse_without_effect(policy, given, executor, is_growing=growing is not None, repair=repair)
    succeeded = (
        sweep_until_resolved(growing, jobs, report, executor)
        if growing
        else run_sweep(name, given, config_dir, jobs, report, naming, executor, repair, policy)
    )
    if not succeeded:
        sys.exit(1)


def _refuse_without_effect(
    policy: FailurePolicy,
    overrides: Sequence[str],
    executor: Local | Submitit | Ray | None,
    *,
    is_growing: bool,
    repair: bool,
) -> None:
    """Raise UserError for options about failures where another part decides about them."""
    from cppo_lab.sweeps.expansion import hydra_settings
    from cppo_lab.sweeps.failures import FailurePolicy

    if is_growing and (repair or policy != FailurePolicy()):
        raise UserError(
            "--repair, --fail-fast, --retry-failed and --keep-diverged: have no effect with --until-resolved."
        )
    is_elsewhere = executor is not None and executor.kind != "local"
    others = hydra_settings(overrides) or ([f"executor={executor.kind}"] if executor and is_elsewhere else [])
    if others and (policy.fails_fast or policy.retries):
        raise UserError(
            f"--fail-fast and --retry-failed N: have no effect with {others[0]}, which decides itself what starts; "
            "its own settings may retry."
        )


def _show_backend(name: str, overrides: Sequence[str], config_dir: Path | None, naming: Naming) -> None:
    """What verl would be told, for --dry-run; nothing where the lab's own process trains."""
    from cppo_lab.cli.verl_commands import show_commands
    from cppo_lab.sweeps.sweep import find_sweep

    planned, _ = find_sweep(name, overrides, config_dir, naming)
    show_commands([run.config for run in planned.runs])


def refuse_jobs(jobs: int | None, overrides: Sequence[str]) -> None:
    """Raise UserError for --jobs with one of Hydra's launchers, which starts the runs itself."""
    from cppo_lab.sweeps.expansion import hydra_settings

    settings = hydra_settings(overrides)
    if jobs is not None and settings:
        raise UserError(
            f"--jobs {jobs}: has no effect with {' '.join(settings)}, since Hydra's launcher starts the runs; use the "
            f"launcher's own setting, such as hydra.launcher.n_jobs={jobs} for joblib."
        )

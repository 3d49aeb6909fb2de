"""`sweep`: the unfinished runs of a sweep, in parallel, and then its report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cppo_lab.cli.console import console, plural
from cppo_lab.cli.damaged import Repair, look_for_damage
from cppo_lab.cli.mirrors import catch_up, close_mirror, open_sweep_mirror
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
    from cppo_lab.config.schema import RunConfig
    from cppo_lab.executors.settings import Local, Ray, Submitit
    from cppo_lab.sweeps.adhoc import Naming
    from cppo_lab.sweeps.jobs import Event, Job, Outcome
    from cppo_lab.sweeps.sweep import PlannedRun, Sweep


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
    from cppo_lab.cli.until_resolved import plan_growing, sweep_until_resolved, until
    from cppo_lab.executors.settings import executor_settings, split_executor
    from cppo_lab.sweeps.adhoc import Naming

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
    if growing is not None and repair:
        raise UserError("--repair: has no effect with --until-resolved; repair the sweep without it first.")
    succeeded = (
        sweep_until_resolved(growing, jobs, report, executor)
        if growing
        else run_sweep(name, given, config_dir, jobs, report, naming, executor, repair)
    )
    if not succeeded:
        sys.exit(1)


def _show_backend(name: str, overrides: Sequence[str], config_dir: Path | None, naming: Naming) -> None:
    """What verl would be told, for --dry-run; nothing where the lab's own process trains."""
    from cppo_lab.cli.verl_commands import show_commands
    from cppo_lab.sweeps.sweep import find_sweep

    planned, _ = find_sweep(name, overrides, config_dir, naming)
    show_commands([run.config for run in planned.runs])


def run_sweep(
    name: str,
    overrides: Sequence[str],
    config_dir: Path | None,
    jobs: int | None,
    report: bool,
    naming: Naming | None = None,
    executor: Local | Submitit | Ray | None = None,
    repair: bool = False,
) -> bool:
    """Run what is not finished, then write the report. False if a run or the report failed, or a run is damaged.

    With `repair`, damaged runs are not finished.
    """
    from cppo_lab.cli.checked_sweep import checked_sweep
    from cppo_lab.sweeps.expansion import hydra_settings
    from cppo_lab.sweeps.frozen_claims import freeze

    planned, grids = checked_sweep(name, overrides, config_dir, naming)
    is_hydras = bool(hydra_settings(overrides))
    refuse_hydra(planned, overrides)
    is_local = executor is None or executor.kind == "local"
    check_runs(planned, is_here=is_local and not is_hydras)
    is_damaged = look_for_damage([run.folder for run in planned.runs], repair)
    if all(run.folder.status == "FINISHED" for run in planned.runs):
        return _nothing_to_do(planned, report) and not is_damaged
    if planned.name == planned.file.slug and (frozen := freeze(planned.file)):
        console().print(f"Claims frozen: {frozen}; commit it.", soft_wrap=True)

    def start(waiting: Sequence[PlannedRun]) -> Mapping[str, str]:
        if not is_hydras:
            return train_runs(planned, waiting, jobs, executor).failed
        _through_hydra(planned, grids, config_dir)
        return {run.folder.path.name: "see run.json" for run in waiting if run.folder.status != "FINISHED"}

    succeeded = train_waiting(planned, start) and not is_damaged
    return finish(planned, report) and succeeded


def train_waiting(planned: Sweep, start: Callable[[Sequence[PlannedRun]], Mapping[str, str]]) -> bool:
    """`start` the runs that are not finished, with the warnings around them; False if one failed.

    `start` returns the reasons of those that did.
    """
    from cppo_lab.cli.region_warnings import warn_after, warn_before

    done = sum(run.folder.status == "FINISHED" for run in planned.runs)
    waiting = [run for run in planned.runs if run.folder.status != "FINISHED" and run.folder.is_readable]
    state = f"{plural(len(waiting), 'run')} to do" + (f", {done} finished" if done else "")
    console().print(f"Sweep [bold]{planned.name}[/]: {state}.")
    warn_before(run.config for run in waiting)
    failed = start(waiting) if waiting else {}
    for key, reason in failed.items():
        console().print(f"[red]failed[/] {key}: {reason}")
    warn_after(run.folder for run in waiting)
    return not failed


def _nothing_to_do(planned: Sweep, report: bool) -> bool:
    """Bring the store and the report up to date; False if there is no report."""
    console().print(f"Sweep {planned.name}: all {len(planned.runs)} runs are finished; nothing to do.")
    catch_up(planned.name, lambda: open_sweep_mirror(planned))
    if not _report_is_current(planned):
        return finish(planned, report)
    _point_to_report(planned)
    return True


def refuse_jobs(jobs: int | None, overrides: Sequence[str]) -> None:
    """Raise UserError for --jobs with one of Hydra's launchers, which starts the runs itself."""
    from cppo_lab.sweeps.expansion import hydra_settings

    settings = hydra_settings(overrides)
    if jobs is not None and settings:
        raise UserError(
            f"--jobs {jobs}: has no effect with {' '.join(settings)}, since Hydra's launcher starts the runs; use the "
            f"launcher's own setting, such as hydra.launcher.n_jobs={jobs} for joblib."
        )


def refuse_hydra(planned: Sweep, overrides: Sequence[str]) -> None:
    """Raise UserError where Hydra would start the runs, and cannot know what each is given."""
    from cppo_lab.sweeps.expansion import hydra_settings

    settings = hydra_settings(overrides)
    if settings and (planned.points is not None or planned.file.tune is not None):
        raise UserError(
            f"sweep {planned.name}: {settings[0]}: Hydra's launchers cannot start tuned or tuning runs, whose settings "
            "are no overrides of the command line; leave it out, and the lab starts them."
        )


def check_runs(planned: Sweep, is_here: bool) -> None:
    """Check inputs, memory and the output folder before any run starts; each distinct input and size once."""
    from cppo_lab.config.size import state_bytes
    from cppo_lab.training.preflight import check_inputs, check_memory, writable

    configs = [run.config for run in planned.runs]
    for config in {tuple(map(repr, _inputs(config))): config for config in configs}.values():
        check_inputs(config)
    # A launcher may start the runs on other machines.
    if is_here:
        for config in {state_bytes(config): config for config in configs}.values():
            check_memory(config)
    writable(planned.output)


def _inputs(config: RunConfig) -> tuple[object, ...]:
    """What the checks of a run's inputs read."""
    # What verl refuses depends on the method and the trainer as well.
    others = (config.algo, config.trainer) if config.backend.kind == "verl" else ()
    return (config.task, config.model, config.engine, config.backend, *others)


def train_runs(
    planned: Sweep,
    waiting: Sequence[PlannedRun],
    jobs: int | None,
    executor: Local | Submitit | Ray | None = None,
) -> Outcome:
    """Train runs of a sweep by an executor, or else here, as many at a time as the cores allow unless `jobs` says."""
    from cppo_lab.sweeps.worker_pool import default_jobs

    if executor is None or executor.kind == "local":
        return run_here(planned, waiting, jobs or default_jobs([run.config for run in waiting]))
    return _run_elsewhere(planned, waiting, executor, jobs)


def run_here(planned: Sweep, waiting: Sequence[PlannedRun], jobs: int) -> Outcome:
    """Train runs of a sweep in worker processes, with progress and tracking."""
    from cppo_lab.sweeps.worker_pool import run_jobs

    return _with_progress(planned, waiting, lambda todo, *told: run_jobs(todo, jobs, *told))


def _run_elsewhere(
    planned: Sweep, waiting: Sequence[PlannedRun], executor: Submitit | Ray, jobs: int | None
) -> Outcome:
    """The same by an executor; MLflow is written by this process alone."""
    from cppo_lab.executors.run_elsewhere import open_workers, run_elsewhere

    workers = open_workers(executor, planned.folder / executor.kind, planned.name)
    return _with_progress(
        planned, waiting, lambda todo, *told: run_elsewhere(todo, workers, executor, jobs, *told)
    )


def _with_progress(
    planned: Sweep,
    waiting: Sequence[PlannedRun],
    do: Callable[[Sequence[Job], Callable[[Event], None], Callable[[], None]], Outcome],
) -> Outcome:
    """`do` the jobs of the runs, given what is to be called with events and several times a second."""
    from cppo_lab.cli.progress import SweepProgress
    from cppo_lab.sweeps.jobs import jobs_for

    mirror = open_sweep_mirror(planned)
    labels = {run.folder.path.name: run.label for run in planned.runs}
    steps = {run.folder.path.name: run.config.trainer.steps for run in waiting}
    with SweepProgress(labels, steps, console()) as progress:

        def on_event(event: Event) -> None:
            progress.show(event)

        try:
            outcome = do(jobs_for([run.config for run in waiting]), on_event, mirror.poll)
        except KeyboardInterrupt:
            progress.stop()
            console().print(
                f"[yellow]Interrupted.[/] Finished runs are kept. To resume, run the same command:\n  {_command_line()}"
            )
            raise
        finally:
            close_mirror(mirror)
    return outcome


def _command_line() -> str:
    from cppo_lab.cli.elsewhere import own_arguments

    return shlex.join(["cppo-lab", *own_arguments()])


def _through_hydra(planned: Sweep, grids: Sequence[Sequence[str]], config_dir: Path | None) -> None:
    """Hand the sweep to Hydra's multirun, for Hydra's launchers and sweepers."""
    from cppo_lab.cli.hydra_launch import exit_code, multirun
    from cppo_lab.paths import PARENT_VARIABLE

    mirror = open_sweep_mirror(planned)
    environment = dict(os.environ)
    if mirror.run_id:
        environment[PARENT_VARIABLE] = mirror.run_id
    try:
        codes = [exit_code(multirun(grid, config_dir), environment) for grid in grids]
        code = max(codes, key=abs)
    finally:
        close_mirror(mirror)
    if code and not any(run.folder.status == "FINISHED" for run in planned.runs):
        raise UserError(f"Hydra's multirun ended with exit code {code}; see its message above.")


def _report_is_current(planned: Sweep) -> bool:
    page = planned.output / "reports" / planned.name / "index.html"
    known = planned.read_manifest()
    if not page.exists() or known != known | planned.manifest():
        return False
    read = [planned.manifest_path, *(run.folder.path / "run.json" for run in planned.runs)]
    return page.stat().st_mtime >= max(path.stat().st_mtime for path in read)


def finish(planned: Sweep, report: bool) -> bool:
    """Update the manifest and the report; False if there is no report, with the reason printed."""
    planned.write_manifest()
    if report and any(run.folder.rows("metrics.jsonl") for run in planned.runs):
        from cppo_lab.analysis.page.report import write_report

        try:
            write_report(planned.output, planned.name)
        except UserError as error:
            console().print(f"No report: {error}", style="red", markup=False)
            return False
    _point_to_report(planned)
    return True


def _point_to_report(planned: Sweep) -> None:
    from cppo_lab.tracking.store_address import tracking_uri, ui_command

    page = planned.output / "reports" / planned.name / "index.html"
    if page.exists():
        console().print(f"Report: {page}")
    tracking = planned.runs[0].config.tracking
    if tracking.enabled:
        uri = tracking_uri(tracking.uri, planned.output)
        console().print(f"MLflow: {ui_command(uri, planned.output)}")

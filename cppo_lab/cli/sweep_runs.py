"""The runs of a sweep: those that are to do, in parallel, and then the report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cppo_lab.cli.console import console, plural
from cppo_lab.cli.damaged import look_for_damage
from cppo_lab.cli.mirrors import catch_up, close_mirror, open_sweep_mirror
from cppo_lab.errors import UserError

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig
    from cppo_lab.executors.settings import Local, Ray, Submitit
    from cppo_lab.sweeps.adhoc import Naming
    from cppo_lab.sweeps.failures import FailurePolicy
    from cppo_lab.sweeps.jobs import Event, Job, Outcome
    from cppo_lab.sweeps.sweep import PlannedRun, Sweep


def run_sweep(
    name: str,
    overrides: Sequence[str],
    config_dir: Path | None,
    jobs: int | None,
    report: bool,
    naming: Naming | None = None,
    executor: Local | Submitit | Ray | None = None,
    repair: bool = False,
    policy: FailurePolicy | None = None,
) -> bool:
    """Run what is not finished, then write the report. False if a run or the report failed, or a run is damaged.

    With `repair`, damaged runs are not finished.
    """
    from cppo_lab.sweeps.failures import FailurePolicy

    policy = policy or FailurePolicy()
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
            return train_runs(planned, waiting, jobs, executor, policy).failed
        _through_hydra(planned, grids, config_dir)
        left = [run.folder for run in waiting if run.folder.status != "FINISHED"]
        return {folder.path.name: "see run.json" for folder in left if policy.is_failure(folder)}

    succeeded = train_waiting(planned, start, policy, jobs) and not is_damaged
    return finish(planned, report) and succeeded


def train_waiting(
    planned: Sweep,
    start: Callable[[Sequence[PlannedRun]], Mapping[str, str]],
    policy: FailurePolicy | None = None,
    jobs: int | None = None,
) -> bool:
    """`start` the runs that are to do, with the warnings around them; False if one failed, now or before.

    `start` returns the reasons of those that did.
    """
    from cppo_lab.cli.region_warnings import warn_after, warn_before
    from cppo_lab.sweeps.cost import short_of_disk
    from cppo_lab.sweeps.failures import FailurePolicy
    from cppo_lab.sweeps.worker_pool import default_jobs

    policy = policy or FailurePolicy()
    done = sum(run.folder.status == "FINISHED" for run in planned.runs)
    waiting = [run for run in planned.runs if policy.is_to_do(run.folder)]
    kept = [run.folder for run in planned.runs if run.folder.status == "FAILED" and run not in waiting]
    state = f"{plural(len(waiting), 'run')} to do" + (f", {done} finished" if done else "")
    state += f", {len(kept)} failed and left alone" if kept else ""
    console().print(f"Sweep [bold]{planned.name}[/]: {state}.")
    configs = [run.config for run in waiting]
    if said := short_of_disk(configs, planned.output, jobs or default_jobs(configs)):
        console().print(f"Warning: {said}", style="yellow", markup=False, soft_wrap=True)
    warn_before(configs)
    failed = dict(start(waiting)) if waiting else {}
    for run in waiting:
        # An executor tells every run that ended early; whether it failed is the policy's to say.
        if run.folder.path.name in failed and not policy.is_failure(run.folder):
            del failed[run.folder.path.name]
    for key, reason in failed.items():
        console().print(f"[red]failed[/] {key}: {reason}")
    not_started = [run for run in waiting if run.folder.status is None and run.folder.path.name not in failed]
    if failed and not_started:
        console().print(f"[yellow]{plural(len(not_started), 'run')} not started[/] (--fail-fast).")
    warn_after(run.folder for run in waiting)
    return not failed and not any(policy.is_failure(folder) for folder in kept)


def _nothing_to_do(planned: Sweep, report: bool) -> bool:
    """Bring the store and the report up to date; False if there is no report."""
    console().print(f"Sweep {planned.name}: all {len(planned.runs)} runs are finished; nothing to do.")
    catch_up(planned.name, lambda: open_sweep_mirror(planned))
    if not _report_is_current(planned):
        return finish(planned, report)
    _point_to_report(planned)
    return True


def refuse_hydra(planned: Sweep, overrides: Sequence[str]) -> None:
    """Raise UserError where Hydra would start the runs, and cannot know what each is given, or would write down a
    password.
    """
    from cppo_lab.config.overrides import refuse_passwords
    from cppo_lab.sweeps.expansion import hydra_settings

    settings = hydra_settings(overrides)
    if settings:
        refuse_passwords(overrides)
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
    policy: FailurePolicy | None = None,
) -> Outcome:
    """Train runs of a sweep by an executor, or else here, as many at a time as the cores allow unless `jobs` says."""
    from cppo_lab.sweeps.worker_pool import default_jobs

    if executor is None or executor.kind == "local":
        at_a_time = jobs or default_jobs([run.config for run in waiting])
        return run_here(planned, waiting, at_a_time, policy)
    return _run_elsewhere(planned, waiting, executor, jobs)


def run_here(
    planned: Sweep, waiting: Sequence[PlannedRun], jobs: int, policy: FailurePolicy | None = None
) -> Outcome:
    """Train runs of a sweep in worker processes, with progress and tracking."""
    from cppo_lab.sweeps.failures import FailurePolicy
    from cppo_lab.sweeps.worker_pool import run_jobs

    chosen = policy or FailurePolicy()
    return _with_progress(
        planned, waiting, lambda todo, on_event, poll: run_jobs(todo, jobs, on_event, poll, chosen)
    )


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

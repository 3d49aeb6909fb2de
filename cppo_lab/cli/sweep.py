"""`sweep`: do what is not done yet, and report."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cppo_lab.cli.asked_sweep import asked_sweep
from cppo_lab.cli.console import console, plural
from cppo_lab.cli.progress import SweepProgress
from cppo_lab.config.compose import search_path
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.sweeps.cost import state_bytes
from cppo_lab.sweeps.expansion import hydra_settings
from cppo_lab.sweeps.sweep import PlannedRun, Sweep
from cppo_lab.sweeps.worker_pool import Event, Outcome, default_jobs, jobs_for, run_jobs
from cppo_lab.tracking.mlflow_sync import NoMirror, SweepMirror
from cppo_lab.training.preflight import check_inputs, check_memory, writable

_STOP_S = 20.0


def run_sweep(
    name: str, overrides: Sequence[str], config_dir: Path | None, jobs: int | None, report: bool
) -> None:
    """Do the runs that are not finished, then write the report."""
    sweep, merged = asked_sweep(name, overrides, config_dir)
    for config in _distinct_inputs(sweep):
        check_inputs(config)
    if not hydra_settings(overrides):
        # A launcher may take the runs to other machines.
        for config in {state_bytes(run.config): run.config for run in sweep.runs}.values():
            check_memory(config)
    writable(sweep.output)
    waiting = [run for run in sweep.runs if run.folder.status != "FINISHED"]
    done = len(sweep.runs) - len(waiting)
    if not waiting:
        console().print(f"Sweep {sweep.name}: all {done} runs are finished already; nothing to do.")
        if not _is_tracked(sweep):
            _mirror(sweep).close(True)
        if _report_is_current(sweep):
            _point_to_report(sweep)
        elif not _finish(sweep, report):
            sys.exit(1)
        return
    state = f"{plural(len(waiting), 'run')} to do" + (f", {done} finished already" if done else "")
    console().print(f"Sweep [bold]{sweep.name}[/]: {state}.")
    if hydra_settings(overrides):
        _through_hydra(sweep, merged, config_dir)
        failed = {run.folder.path.name: "see run.json" for run in waiting if run.folder.status != "FINISHED"}
    else:
        workers = jobs or default_jobs([run.config for run in waiting])
        failed = _run_here(sweep, waiting, workers).failed
    for key, reason in failed.items():
        console().print(f"[red]failed[/] {key}: {reason}")
    if not _finish(sweep, report) or failed:
        sys.exit(1)


def refuse_jobs(jobs: int | None, overrides: Sequence[str]) -> None:
    """Raise UserError where Hydra's launcher does the runs, which --jobs does not reach."""
    settings = hydra_settings(overrides)
    if jobs is not None and settings:
        raise UserError(
            f"--jobs {jobs}: Hydra's launcher does the runs with {' '.join(settings)}; give its own setting, such as "
            f"hydra.launcher.n_jobs={jobs} of joblib."
        )


def _distinct_inputs(sweep: Sweep) -> list[RunConfig]:
    """One configuration for each task, model and engine of the sweep, which are looked at only once."""
    found = {tuple(map(repr, (c.task, c.model, c.engine))): c for c in (run.config for run in sweep.runs)}
    return list(found.values())


def _run_here(sweep: Sweep, waiting: Sequence[PlannedRun], jobs: int) -> Outcome:
    mirror = _mirror(sweep)
    labels = {run.folder.path.name: run.label for run in sweep.runs}
    steps = {run.folder.path.name: run.config.trainer.steps for run in waiting}
    succeeded = False
    with SweepProgress(labels, steps, console()) as progress:

        def on_event(event: Event) -> None:
            progress.show(event)

        try:
            outcome = run_jobs(jobs_for([run.config for run in waiting]), jobs, on_event, mirror.poll)
            succeeded = not outcome.failed
        except KeyboardInterrupt:
            progress.stop()
            console().print(
                f"[yellow]Interrupted.[/] Finished runs are kept; the same command goes on:\n  {_command_line()}"
            )
            raise
        finally:
            mirror.close(succeeded)
    return outcome


def _command_line() -> str:
    return shlex.join(["cppo-lab", *sys.argv[1:]])


def _mirror(sweep: Sweep) -> SweepMirror | NoMirror:
    tracking = sweep.runs[0].config.tracking
    if not tracking.enabled:
        sweep.write_manifest()
        return NoMirror()
    with console().status("Opening the MLflow store …"):
        return SweepMirror(sweep, tracking)


def _is_tracked(sweep: Sweep) -> bool:
    """Whether the store knows this sweep: its runs may all be there already because of another."""
    from cppo_lab.tracking.mlflow_store import store_name, tracking_uri

    tracking = sweep.runs[0].config.tracking
    name = store_name(tracking_uri(tracking.uri, sweep.output), sweep.output)
    return not tracking.enabled or sweep.read_manifest().get("tracking_store") == name


def _through_hydra(sweep: Sweep, grids: Sequence[Sequence[str]], config_dir: Path | None) -> None:
    """Hand the sweep to Hydra's own multirun, which knows launchers and sweepers that the lab does not."""
    mirror = _mirror(sweep)
    environment = dict(os.environ)
    if mirror.run_id:
        environment["CPPO_LAB_PARENT_RUN"] = mirror.run_id
    succeeded = False
    try:
        codes = [_exit_code(_multirun(grid, config_dir), environment) for grid in grids]
        code = max(codes, key=abs)
        succeeded = code == 0
    finally:
        mirror.close(succeeded)
    if code and not any(run.folder.status == "FINISHED" for run in sweep.runs):
        raise UserError(f"Hydra's multirun ended with exit code {code}; its message stands above.")


def _multirun(overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    searched = search_path(overrides, config_dir)
    return [sys.executable, "-m", "cppo_lab.hydra_app", "--multirun", *searched, *overrides]


def _exit_code(command: Sequence[str], environment: Mapping[str, str]) -> int:
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal interrupts the runs as well; they need a moment to say so in their folders.
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.terminate()
            raise


def _report_is_current(sweep: Sweep) -> bool:
    page = sweep.output / "reports" / sweep.name / "index.html"
    known = sweep.read_manifest()
    if not page.exists() or known != known | sweep.manifest():
        return False
    read = [sweep.manifest_path, *(run.folder.path / "run.json" for run in sweep.runs)]
    return page.stat().st_mtime >= max(path.stat().st_mtime for path in read)


def _finish(sweep: Sweep, report: bool) -> bool:
    """Bring manifest and report up to date; False where there can be no report, with the reason printed."""
    sweep.write_manifest()
    if report and any(run.folder.rows("metrics.jsonl") for run in sweep.runs):
        from cppo_lab.analysis.page.report import write_report

        try:
            write_report(sweep.output, sweep.name)
        except UserError as error:
            console().print(f"No report: {error}", style="red", markup=False)
            return False
    _point_to_report(sweep)
    return True


def _point_to_report(sweep: Sweep) -> None:
    from cppo_lab.tracking.mlflow_store import tracking_uri, ui_command

    page = sweep.output / "reports" / sweep.name / "index.html"
    if page.exists():
        console().print(f"Report: {page}")
    tracking = sweep.runs[0].config.tracking
    if tracking.enabled:
        uri = tracking_uri(tracking.uri, sweep.output)
        console().print(f"MLflow: {ui_command(uri, sweep.output)}")

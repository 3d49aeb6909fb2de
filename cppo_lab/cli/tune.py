"""`tune`: the best setting of every method of a tuning study, on an equal number of trials."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cppo_lab.cli.console import console, plural, table
from cppo_lab.cli.options import ConfigDir, Output, Overrides, Plugins, SweepName, all_overrides
from cppo_lab.errors import UserError

if TYPE_CHECKING:
    from cppo_lab.analysis.tuning import Request, Round, Rows
    from cppo_lab.executors.settings import Local, Ray, Submitit
    from cppo_lab.sweeps.sweep import Sweep
    from cppo_lab.sweeps.tuned_points import TunedPoint, TunedPoints


class Source(StrEnum):
    """Where results come from, other than from runs."""

    results = "results"


def tune(
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the trials and stop.")] = False,
    source: Annotated[
        Source | None,
        typer.Option(
            "--from",
            help="`results`: run nothing; choose from the rows of the result files alone.",
            show_default=False,
        ),
    ] = None,
    results: Annotated[
        Path,
        typer.Option(
            help="The folder of result files, the study's and other sweeps', whose runs are not run again."
        ),
    ] = Path("results"),
    folder: Annotated[
        Path | None,
        typer.Option(
            "--to",
            help="Where to write NAME.yaml (default: the folder `tuned` beside the study's file).",
            show_default=False,
        ),
    ] = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
) -> None:
    """Find the best learning rate, and threshold, of every method of a tuning study.

    Every method has the same number of trials, and the same seeds. The result is a file of tuned points for sweeps that
    say `tuned: NAME` and run on other seeds. The same command resumes a study that was interrupted.

    Examples:

    * `cppo-lab tune lr_sensitivity --dry-run`
    * `cppo-lab tune lr_sensitivity -j 2`
    * `cppo-lab tune lr_sensitivity --from results`
    """
    from cppo_lab.analysis.tuning import rounds, rows_from_results, tuned_points
    from cppo_lab.executors.settings import executor_settings, split_executor
    from cppo_lab.sweeps.tuned_points import tuned_file, write_tuned

    own, rest = split_executor(overrides or [])
    request = _request(name, all_overrides(rest, output, plugins), config_dir)
    executor = executor_settings(own, config_dir)
    committed = rows_from_results(results / f"{request.file.slug}.csv", *sorted(results.glob("*.csv")))
    if dry_run:
        _show_trials(request, committed, jobs)
        return
    if source is Source.results and not committed:
        raise UserError(
            f"--from results: {results} has no rows; give --results, or run cppo-lab tune {name}."
        )
    runner = None if source is Source.results else _Runner(jobs, executor)
    read = _Reader(committed, is_running=runner is not None)
    study, last = rounds(request, read, runner.run if runner else None)
    points = tuned_points(request, study, last)
    to = tuned_file(request.file) if folder is None else folder / f"{request.file.slug}.yaml"
    write_tuned(to, points)
    _show_points(points)
    console().print(f"Tuned points: {to}", soft_wrap=True)


def _request(name: str, given: Sequence[str], config_dir: Path | None) -> Request:
    from cppo_lab.analysis.tuning import Request
    from cppo_lab.config.overrides import with_plugins
    from cppo_lab.sweeps.adhoc import distinguishing
    from cppo_lab.sweeps.samplers import check_sampler
    from cppo_lab.sweeps.sweep_file import read_sweep, split_scale

    if "=" in name:
        raise UserError(f"tune {name}: needs a sweep file with a 'tune' section, or the name of one.")
    scale, overrides = split_scale(with_plugins([], given))
    file = read_sweep(name, scale)
    if file.tune is None:
        raise UserError(
            f"tune {name}: its sweep file has no 'tune' section, such as tune: {{over: [trainer.lr]}}, that says what "
            "to tune."
        )
    check_sampler(file.tune)
    return Request(
        file, tuple(with_plugins(file.plugins, overrides)), config_dir, tuple(distinguishing(overrides))
    )


class _Reader:
    """The rows of the result files and, where runs are made, those of the output folder that the files lack."""

    def __init__(self, committed: Rows, is_running: bool) -> None:
        self._committed, self._is_running = committed, is_running

    def __call__(self, sweep: Sweep | None) -> Rows:
        from cppo_lab.analysis.tuning import rows_from_folders

        if sweep is None or not self._is_running:
            return self._committed
        return {**rows_from_folders(sweep), **self._committed}


class _Runner:
    """Trains the runs that a round lacks."""

    def __init__(self, jobs: int | None, executor: Local | Submitit | Ray) -> None:
        self._jobs, self._executor = jobs, executor

    def run(self, here: Round) -> None:
        """Train them. Raises UserError where one fails without a result and has not diverged: its setting could not be
        judged, and the same command resumes it.
        """
        from cppo_lab.cli.sweep_runs import check_runs, train_runs

        waiting = [run for run in here.missing if run.folder.status != "FINISHED"]
        if not waiting:
            return
        check_runs(here.sweep, is_here=self._executor.kind == "local")
        console().print(f"Study [bold]{here.sweep.name}[/]: {plural(len(waiting), 'run')} to do.")
        failed = train_runs(here.sweep, waiting, self._jobs, self._executor).failed
        without_result = [key for key in failed if not _has_result(here.sweep, key)]
        if without_result:
            key = without_result[0]
            raise UserError(
                f"tune {here.sweep.name}: run {key} failed before its first evaluation ({failed[key]}), so that its "
                "setting cannot be judged; the same command resumes it, or leave its values out."
            )


def _has_result(sweep: Sweep, key: str) -> bool:
    """Whether a run that failed can be judged: it was evaluated, or diverged, and that says enough of its setting."""
    from cppo_lab.analysis.tuning import was_evaluated

    runs = {run.folder.path.name: run for run in sweep.runs}
    return key in runs and (was_evaluated(runs[key]) or runs[key].folder.info.get("diverged") is True)


def _show_trials(request: Request, committed: Rows, jobs: int | None) -> None:
    """What the first round would run; a sampler's trials after it are not known yet."""
    from cppo_lab.analysis.tuning import begin, plan_round
    from cppo_lab.cli.time_left import time_left_text
    from cppo_lab.sweeps.cost import cost, step_times
    from cppo_lab.sweeps.trials import setting_text
    from cppo_lab.sweeps.worker_pool import default_jobs

    study = begin(request)
    section = request.section
    here = plan_round(request, study, committed)
    shown = table(request.file.title, "panel", "method", "trials", "settings")
    for place, settings in study.trials.settings.items():
        panel = ", ".join(f"{key}={value}" for key, value in place.panel)
        planned = section.trials if section.is_adaptive else len(settings)
        listed = ", ".join(map(setting_text, settings)) + (", …" if section.is_adaptive else "")
        shown.add_row(panel, place.method, str(planned), listed)
    console().print(shown)
    waiting = [run for run in here.missing if run.folder.status != "FINISHED"]
    times = step_times(here.sweep.output)
    workers = jobs or default_jobs([run.config for run in waiting])
    left = time_left_text([cost(run.config, times).time_s for run in waiting], workers)
    rounds = "in the first round" if section.is_adaptive or section.prune else "before a grid is widened"
    console().print(
        f"\n{plural(len(here.missing) + len(here.used), 'run')} {rounds}, {len(waiting)} to do: {left} with "
        f"{plural(workers, 'run')} in parallel."
    )


def _show_points(points: TunedPoints) -> None:
    shown = table(
        f"Tuned on {plural(len(points.seeds), 'seed')}", "panel", "method", "tuned", "trials", "accuracy", "published",
        "regret", "notes",
    )  # fmt: skip
    for point in points.points:
        panel = ", ".join(f"{key}={value}" for key, value in point.panel.items())
        published = " ".join(f"{key}={value:g}" for key, value in point.published.setting.items())
        shown.add_row(
            panel,
            point.method,
            " ".join(f"{key}={value:g}" for key, value in point.setting.items()),
            str(point.trials),
            _with_error(point.accuracy, point.stderr),
            published,
            _regret(point),
            "; ".join(point.notes),
        )
    console().print(shown)


def _regret(point: TunedPoint) -> str:
    was_tried = any(each.setting == point.published.setting for each in point.tried)
    if point.published.regret is None and was_tried:
        return "failed"
    return _with_error(point.published.regret, point.published.stderr)


def _with_error(value: float | None, error: float | None) -> str:
    """An accuracy or a difference in points, with its standard error."""
    if value is None:
        return "not tried"
    return f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")

"""`plan`: what a sweep would run, in what state that is, and what it would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from cppo_lab.cli.console import console, count, plural, print_json, seconds, table
from cppo_lab.objectives.weights import admitted
from cppo_lab.plan import Cost, cost
from cppo_lab.policies.starting import cache_folder, is_ready
from cppo_lab.runs.scheduler import default_jobs
from cppo_lab.runs.sweeps import PlannedRun, Sweep, find_sweep

PlanRow = tuple[PlannedRun, str, Cost]
"""A run, its state, and what it would cost."""


def show_plan(name: str, overrides: Sequence[str], config_dir: Path | None, as_json: bool) -> None:
    """Print what the sweep would run."""
    sweep, _ = find_sweep(name, overrides, config_dir)
    rows = [(run, run.folder.present_status or "PENDING", cost(run.config)) for run in sweep.runs]
    waiting = [run.config for run, state, _ in rows if state != "FINISHED"]
    policies = {cache_folder(config).name for config in waiting if not is_ready(config)}
    if as_json:
        _print_as_json(sweep, rows, len(policies))
    else:
        _print_for_a_person(sweep, rows, len(policies))


def _print_as_json(sweep: Sweep, rows: Sequence[PlanRow], policies: int) -> None:
    runs = [
        {
            "run": run.folder.path.name,
            "overrides": run.overrides,
            "state": state,
            "theorem_1": admitted(run.config.algo),
            **asdict(estimate),
        }
        for run, state, estimate in rows
    ]
    print_json({"name": sweep.name, "starting_policies_to_make": policies, "runs": runs})


def _print_for_a_person(sweep: Sweep, rows: Sequence[PlanRow], policies: int) -> None:
    columns = ("run", "overrides", "state", "tokens ≤", "updates ≤", "time ~", "memory ~")
    shown = table(sweep.file.title, *columns)
    for run, state, estimate in rows:
        memory = estimate.memory_bytes
        shown.add_row(
            run.folder.path.name,
            Text(" ".join(f"{key}={value}" for key, value in run.axes.items())),
            state.lower(),
            count(estimate.tokens),
            count(estimate.updates),
            seconds(estimate.time_s),
            "?" if memory is None else f"{memory / 2**30:.1f} GiB",
        )
    console().print(shown)
    if sweep.file.question:
        console().print(f"\n{sweep.file.question}", markup=False)
    for method, verdict in {run.config.algo.name: admitted(run.config.algo) for run in sweep.runs}.items():
        if verdict:
            console().print(f"Position weights of {method}: {verdict} by CPPO's Theorem 1.")
    _print_total(rows, policies)


def _print_total(rows: Sequence[PlanRow], policies: int) -> None:
    waiting = [(run.config, estimate) for run, state, estimate in rows if state != "FINISHED"]
    times = [estimate.time_s for _, estimate in waiting if estimate.time_s is not None]
    jobs = default_jobs([config for config, _ in waiting])
    bases = ", ".join(sorted({estimate.time_basis for *_, estimate in rows}))
    left = seconds(time_left(times, jobs))
    console().print(
        f"\n{plural(len(rows), 'run')}, {len(rows) - len(waiting)} done; about {left} to go with "
        f"{jobs} at a time, and {plural(policies, 'starting policy')} to make. Times come from: {bases}."
    )


def time_left(times: Sequence[float], jobs: int) -> float:
    """Seconds that runs of `times` take, `jobs` at a time: no fewer than the longest of them."""
    return max(sum(times) / jobs, max(times, default=0.0))

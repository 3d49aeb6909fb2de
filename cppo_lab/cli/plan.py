"""`plan`: the runs of a sweep, their state, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from cppo_lab.cli.console import console, count, plural, print_json, seconds, table
from cppo_lab.cli.damaged import readable
from cppo_lab.cli.options import (
    AsJson,
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
from cppo_lab.cli.time_left import time_left_text
from cppo_lab.files import free_bytes

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig
    from cppo_lab.sweeps.adhoc import Naming
    from cppo_lab.sweeps.cost import Cost
    from cppo_lab.sweeps.gpu_cost import GpuCost
    from cppo_lab.sweeps.sweep import PlannedRun, Sweep
    from cppo_lab.sweeps.tuned_points import TunedPoint

    PlanRow = tuple[PlannedRun, str, Cost]
    """A run, its state, and what it would cost."""

_MUCH_DISK = 1 << 30


def plan(
    name: SweepName,
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
    adhoc_name: Name = None,
    baseline: Baseline = None,
    label: Label = None,
) -> None:
    """Show the runs of a sweep: state, tokens, updates, and estimated time and memory.

    Example: `cppo-lab plan quickstart 'seed=range(0,5)'`
    """
    from cppo_lab.sweeps.adhoc import Naming

    naming = Naming(adhoc_name, baseline, label)
    show_plan(name, all_overrides(overrides, output, plugins), config_dir, as_json, naming=naming)


def show_plan(
    name: str,
    overrides: Sequence[str],
    config_dir: Path | None,
    as_json: bool,
    jobs: int | None = None,
    naming: Naming | None = None,
) -> None:
    """Print the runs of a sweep, and how long they take with `jobs` in parallel."""
    from cppo_lab.cli.checked_sweep import checked_sweep
    from cppo_lab.sweeps.cost import cost, step_times
    from cppo_lab.training.policy_cache import missing_policy

    sweep, _ = checked_sweep(name, overrides, config_dir, naming)
    times = step_times(sweep.output)
    readable(run.folder for run in sweep.runs)
    rows = [(run, run.folder.present_status or "PENDING", cost(run.config, times)) for run in sweep.runs]
    waiting = [run.config for run, state, _ in rows if state != "FINISHED"]
    policies = {folder.name for config in waiting if (folder := missing_policy(config))}
    if as_json:
        _print_as_json(sweep, rows, len(policies))
    else:
        _print_tables(sweep, rows, len(policies), jobs)


def _print_as_json(sweep: Sweep, rows: Sequence[PlanRow], policies: int) -> None:
    from cppo_lab.objectives.describe import admitted
    from cppo_lab.sweeps.gpu_cost import FLOP_MODEL, MEMORY_MODEL

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
    models = {}
    if any(estimate.gpu for *_, estimate in rows):
        models = {"flop_model": FLOP_MODEL, "memory_model": MEMORY_MODEL}
    print_json({"name": sweep.name, "starting_policies_to_make": policies, "runs": runs, **models})


def _print_tables(sweep: Sweep, rows: Sequence[PlanRow], policies: int, jobs: int | None) -> None:
    from cppo_lab.objectives.describe import admitted

    _print_runs(sweep, rows)
    if sweep.file.question:
        console().print(f"\n{sweep.file.question}", markup=False)
    for method, verdict in {run.config.algo.name: admitted(run.config.algo) for run in sweep.runs}.items():
        if verdict:
            console().print(f"Position weights of {method}: {verdict} by CPPO's Theorem 1.")
    _show_tuned(sweep)
    _print_gpu_scale(rows)
    _print_total(rows, policies, jobs)


def _print_runs(sweep: Sweep, rows: Sequence[PlanRow]) -> None:
    columns = ["run", "overrides", "state", "tokens ≤", "updates ≤", "time ~", "memory ~"]
    is_gpu_scale = any(estimate.gpu for *_, estimate in rows)
    if is_gpu_scale:
        columns += ["H100-hours ≤", "80 GiB devices"]
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
            *(_gpu_cells(estimate) if is_gpu_scale else ()),
        )
    console().print(shown)


def _gpu_cells(estimate: Cost) -> tuple[str, str]:
    gpu = estimate.gpu
    return ("", "") if gpu is None else (count(round(gpu.h100_hours)), str(gpu.devices))


def _print_gpu_scale(rows: Sequence[PlanRow]) -> None:
    """How GPU costs are estimated, and which models do not fit on one device."""
    from cppo_lab.sweeps.gpu_cost import FLOP_MODEL, MEMORY_MODEL

    known = [(run.config, estimate.gpu) for run, _, estimate in rows if estimate.gpu]
    if not known:
        return
    hours = sum(gpu.h100_hours for _, gpu in known)
    sampled = sum(gpu.sampled_tokens for _, gpu in known)
    evaluated = sum(gpu.evaluation_tokens for _, gpu in known)
    console().print(
        f"\nIn total: at most {count(round(hours))} H100-hours, {count(sampled)} sampled tokens for training and "
        f"{count(evaluated)} for evaluation. {FLOP_MODEL} {MEMORY_MODEL}",
        markup=False,
    )
    for model in dict.fromkeys(config.model.name for config, _ in known):
        _print_what_does_not_fit(model, {c.algo.name: gpu for c, gpu in known if c.model.name == model})


def _print_what_does_not_fit(model: str, by_method: Mapping[str, GpuCost]) -> None:
    # Methods with a separate critic need more than the others: each size is printed once.
    sizes = [gpu.one_device_bytes for gpu in by_method.values()]
    usual = max(sizes, key=sizes.count)
    for size in dict.fromkeys(sizes):
        methods = [method for method, gpu in by_method.items() if gpu.one_device_bytes == size]
        gpu = by_method[methods[0]]
        if not gpu.fits_one_device:
            which = "" if size == usual else f" with {', '.join(methods)}"
            console().print(
                f"{model}{which} needs {size / 2**30:.0f} GiB and does not fit on one 80 GiB device; sharded, it "
                f"needs {gpu.devices}. The lab's own process uses one device; backend=verl shares a model among many.",
                markup=False,
            )


def _print_total(rows: Sequence[PlanRow], policies: int, jobs: int | None) -> None:
    from cppo_lab.sweeps.worker_pool import default_jobs

    waiting = [(run.config, estimate) for run, state, estimate in rows if state != "FINISHED"]
    workers = jobs or default_jobs([config for config, _ in waiting])
    done = f"\n{plural(len(rows), 'run')}, {len(rows) - len(waiting)} finished"
    if waiting and all(estimate.gpu for _, estimate in waiting):
        hours = sum(estimate.gpu.h100_hours for _, estimate in waiting if estimate.gpu)
        console().print(f"{done}; at most {count(round(hours))} H100-hours left, one device at a time.")
        return
    _print_disk([config for config, _ in waiting], workers)
    bases = ", ".join(sorted({estimate.time_basis for *_, estimate in rows}))
    left = time_left_text([estimate.time_s for _, estimate in waiting], workers)
    console().print(
        f"{done}; {left} left with {plural(workers, 'run')} in parallel; {plural(policies, 'starting policy')} to "
        f"train first. Times are estimated from: {bases}."
    )


def _print_disk(waiting: Sequence[RunConfig], jobs: int) -> None:
    """What the checkpoints of the runs will take, where it is much, and whether there is room."""
    from cppo_lab.sweeps.cost import needed_disk, short_of_disk

    needed = needed_disk(waiting, jobs)
    if needed < _MUCH_DISK:
        return
    output = waiting[0].paths.output
    free = free_bytes(output)
    console().print(
        f"\nDisk: about {needed / 2**30:.1f} GiB of checkpoints; {free / 2**30:.1f} GiB are free."
    )
    if said := short_of_disk(waiting, output, jobs):
        console().print(f"Warning: {said}", style="yellow", markup=False, soft_wrap=True)


def _show_tuned(sweep: Sweep) -> None:
    """Print the tuned settings of a sweep's runs, and what the sweep sets otherwise."""
    if sweep.points is None:
        return
    used: dict[str, TunedPoint] = {run.point.place: run.point for run in sweep.runs if run.point is not None}
    console().print(
        f"\nTuned by {sweep.points.study}, {plural(len(sweep.points.seeds), 'seed')}:", markup=False
    )
    for place, point in used.items():
        notes = f" ({'; '.join(point.notes)})" if point.notes else ""
        console().print(f"  {place}: {' '.join(point.overrides) or 'as published'}{notes}", markup=False)
    overruled = {
        f"  {run.point.place}: {text} is not used, since the sweep sets {text.partition('=')[0]} itself"
        for run in sweep.runs
        if run.point is not None
        for text in run.overruled
    }
    for line in sorted(overruled):
        console().print(line, markup=False)
    others = sorted({run.config.algo.name for run in sweep.runs if run.point is None})
    if others:
        console().print(
            f"  not tuned, as the sweep sets the tuned keys itself: {', '.join(others)}", markup=False
        )

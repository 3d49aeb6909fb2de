"""`reproduce`: fresh seeds of a committed sweep, and whether they agree with its committed rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cppo_lab.cli.console import console, plural
from cppo_lab.cli.options import ConfigDir, Output, Overrides, Plugins, all_overrides
from cppo_lab.errors import UserError

if TYPE_CHECKING:
    from cppo_lab.analysis.reproduce import Replication
    from cppo_lab.analysis.run_table import Run, RunTable
    from cppo_lab.sweeps.fresh_seeds import Setting
    from cppo_lab.sweeps.sweep import Sweep

DISAGREEMENT = 3
"""The exit code where a contrast disagrees with the committed rows."""


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP",
            help="The name of a sweep with a result file, or its YAML file.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many fresh seeds to run.")] = 2,
    first_seed: Annotated[
        int, typer.Option("--first-seed", min=0, help="Take fresh seeds from this one on.")
    ] = 1000,
    results: Annotated[
        Path, typer.Option("--results", help="The folder of committed result files; only read.")
    ] = Path("results"),
    margin: Annotated[
        float,
        typer.Option("--margin", min=0.0, help="Differences in accuracy that count as none, in points."),
    ] = 3.0,
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and what it could find, and stop.")
    ] = False,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
) -> None:
    """Run fresh seeds of a committed sweep, and say per contrast whether they agree with the committed rows.

    The seeds are the first ones from --first-seed on that no committed row has. Nothing in the folder of result files
    is written. A run that diverges counts, as in reports. Exit code 3: a contrast disagrees.

    Examples:

    * `cppo-lab reproduce fig5_soft --seeds 2`
    * `cppo-lab reproduce table1 model=s regime=mismatch algo=grpo,cppo --seeds 8 -j 4`
    * `cppo-lab reproduce fig5_soft --dry-run`
    """
    from cppo_lab.cli.checked_sweep import checked_sweep
    from cppo_lab.cli.plan import show_plan
    from cppo_lab.cli.sweep import refuse_jobs
    from cppo_lab.cli.sweep_runs import run_sweep
    from cppo_lab.executors.settings import executor_settings, split_executor
    from cppo_lab.sweeps.fresh_seeds import seeds_override

    own, rest = split_executor(overrides or [])
    given = all_overrides(rest, output, plugins)
    executor = executor_settings(own, config_dir)
    _refuse_seeds(given)
    refuse_jobs(jobs, given)
    planned, _ = checked_sweep(name, given, config_dir)
    committed, places = _committed(planned, results)
    chosen = _fresh_seeds(planned, results, seeds, first_seed)
    fresh = [*given, seeds_override(chosen)]
    told = f"Fresh {'seed' if seeds == 1 else 'seeds'} of {planned.file.slug}: {', '.join(map(str, chosen))}"
    console().print(f"{told}; {plural(len(committed.runs), 'committed run')} to compare with.")
    if dry_run:
        show_plan(name, fresh, config_dir, as_json=False, jobs=jobs)
        _print_power(planned, committed, seeds, margin / 100)
        _print_left_out(planned)
        return
    succeeded = run_sweep(name, fresh, config_dir, jobs, report=False, executor=executor)
    sweep, _ = checked_sweep(name, fresh, config_dir)
    found = _compared(planned, committed, _measured(sweep, places), margin / 100)
    _print(found)
    _print_left_out(planned)
    path = sweep.folder / "reproduction.json"
    path.write_text(json.dumps(_record(planned, chosen, found), indent=2) + "\n", encoding="utf-8")
    console().print(f"Kept in {path}.", soft_wrap=True)
    if any(each.verdict == "disagrees" for each in found):
        sys.exit(DISAGREEMENT)
    if not succeeded:
        sys.exit(1)


def _refuse_seeds(overrides: Sequence[str]) -> None:
    for override in overrides:
        if override.lstrip("+").partition("=")[0] == "seed":
            raise UserError(
                f"{override}: reproduce chooses seeds that are new; give --seeds or --first-seed."
            )


def _committed(planned: Sweep, folder: Path) -> tuple[RunTable, dict[Setting, Run]]:
    """The committed rows of the planned runs, and one of them for each setting.

    Raises UserError where there is no such row.
    """
    from cppo_lab.analysis.load.result_files import read_results, run_table
    from cppo_lab.analysis.run_table import RunTable
    from cppo_lab.config.identity import run_ids
    from cppo_lab.sweeps.fresh_seeds import planned_seeds, setting

    planned_seeds(planned)
    path = folder / f"{planned.file.slug}.csv"
    rows = {run.run_id: run for run in run_table(read_results(path)).runs}
    if not rows:
        raise UserError(
            f"{path}: holds no committed row to compare with; cppo-lab results writes such files."
        )
    kept: dict[str, Run] = {}
    places: dict[Setting, Run] = {}
    for run in planned.runs:
        for row in (rows[each] for each in run_ids(run.config) & rows.keys()):
            kept[row.run_id] = row
            places.setdefault(setting(run), row)
    if not kept:
        raise UserError(
            f"{path}: has no row of the {len(planned.runs)} planned runs; overrides may choose among the sweep's runs, "
            "and not change them."
        )
    return RunTable(tuple(kept.values())), places


def _fresh_seeds(planned: Sweep, folder: Path, number: int, first: int) -> list[int]:
    from cppo_lab.analysis.load.result_files import read_results
    from cppo_lab.sweeps.fresh_seeds import SEED, fresh_seeds, planned_seeds

    taken = planned_seeds(planned)
    for path in sorted(folder.glob("*.csv")):
        known = read_results(path)
        taken |= {row.get(SEED, "") for row in (*known.rows, *known.set_aside)}
    return fresh_seeds(taken, number, first)


def _measured(sweep: Sweep, places: dict[Setting, Run]) -> RunTable:
    """The finished fresh runs at the places of the committed runs that they repeat."""
    from cppo_lab.analysis.load.scores import score_runs
    from cppo_lab.analysis.load.sources import load_study
    from cppo_lab.analysis.reproduce import moved
    from cppo_lab.analysis.run_table import RunTable
    from cppo_lab.sweeps.expansion import values_set
    from cppo_lab.sweeps.fresh_seeds import SEED, setting

    runs = {run.run_id: run for run in sweep.runs}
    found = []
    for measured in score_runs(load_study(sweep.output, sweep.name))[0].runs:
        run = runs[measured.run_id]
        if setting(run) in places:
            seed = values_set(run.overrides)[SEED]
            found.append(moved(measured, places[setting(run)], SEED, seed))
    return RunTable(tuple(found))


def _compared(planned: Sweep, committed: RunTable, fresh: RunTable, margin: float) -> list[Replication]:
    from cppo_lab.analysis.claims import read_claims
    from cppo_lab.analysis.reproduce import replications

    claims = read_claims(planned.name, planned.file.claims)
    return replications(claims, planned.file.baseline, committed, fresh, margin)


def _print_power(planned: Sweep, committed: RunTable, seeds: int, margin: float) -> None:
    """What so many fresh seeds could find, by the committed spread."""
    from cppo_lab.analysis.reproduce_text import power
    from cppo_lab.analysis.run_table import RunTable

    for each in _compared(planned, committed, RunTable(), margin):
        place = f" ({each.panel})" if each.panel else ""
        console().print(f"{each.says}{place}. {power(each, seeds)}", markup=False)


def _print(found: Sequence[Replication]) -> None:
    from cppo_lab.analysis.reproduce_text import ASSUMPTION, conclusion, sentence

    for each in found:
        style = "bold red" if each.verdict == "disagrees" else None
        console().print(sentence(each), style=style, markup=False)
    console().print(conclusion(found), markup=False)
    console().print(ASSUMPTION, style="dim", markup=False)


def _print_left_out(planned: Sweep) -> None:
    from cppo_lab.analysis.claims import read_claims

    for claim in read_claims(planned.name, planned.file.claims):
        if claim.measure is not None:
            reason = "each method's best setting is chosen from all seeds, and not from a few"
            console().print(f"{claim.says}: not reproduced, since {reason}.", style="dim", markup=False)


def _record(planned: Sweep, seeds: Sequence[int], found: Sequence[Replication]) -> dict[str, object]:
    from cppo_lab.files import jsonable

    content = {
        "sweep": planned.file.slug,
        "seeds": list(seeds),
        "contrasts": [each.record() for each in found],
    }
    return dict(jsonable(content))

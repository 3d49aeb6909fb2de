"""`train`: one run in this process."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cppo_lab.cli.console import console
from cppo_lab.cli.damaged import Repair, look_for_damage
from cppo_lab.cli.mirrors import catch_up, close_mirror, open_run_mirror
from cppo_lab.cli.options import ConfigDir, Output, Overrides, Plugins, all_overrides

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig
    from cppo_lab.tracking.run_folder import RunFolder
    from cppo_lab.training.activity import Activity


def train(
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what verl would be told (backend=verl), and stop.")
    ] = False,
    repair: Repair = False,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
) -> None:
    """Train one run; resumes if interrupted.

    Examples:

    * `cppo-lab train algo=cppo seed=1`
    * `cppo-lab train algo=dppo_tv model=m task.steps=8 trainer.lr=2e-4`
    * `cppo-lab train task=gsm8k task.path=train.jsonl trainer.steps=3`
    * `cppo-lab train recipe=qwen3_1.7b_base algo=dppo_topk_tv`
    * `cppo-lab train algo=mine --plugins my_rules/`
    * `cppo-lab train recipe=qwen3_8b_base algo=cppo backend=verl backend.nodes=1 backend.gpus_per_node=8`
    """
    given = all_overrides(overrides, output, plugins)
    if dry_run:
        _dry_run(given, config_dir)
    else:
        _train(given, config_dir, repair)


def _dry_run(overrides: Sequence[str], config_dir: Path | None) -> None:
    from cppo_lab.cli.verl_commands import print_command
    from cppo_lab.config.compose import compose_run
    from cppo_lab.errors import UserError

    config = compose_run(overrides, config_dir)
    if config.backend.kind != "verl":
        raise UserError("--dry-run: only applies to backend=verl; cppo-lab config shows what a run would be.")
    print_command(config)


def _train(overrides: Sequence[str], config_dir: Path | None, repair: bool) -> None:
    from cppo_lab.cli.region_warnings import warn_after, warn_before
    from cppo_lab.config.compose import compose_run
    from cppo_lab.tracking.run_folder import run_folder
    from cppo_lab.training.preflight import check_inputs, check_memory, writable

    config = compose_run(overrides, config_dir)
    check_inputs(config)
    check_memory(config)
    writable(config.paths.output)
    folder = run_folder(config)
    is_damaged = look_for_damage([folder], repair)
    if folder.status == "FINISHED":
        console().print(f"Run {folder.path} is already finished; nothing to do.")
        catch_up(folder.path.name, lambda: open_run_mirror(config, folder))
        if is_damaged:
            sys.exit(1)
        return
    warn_before([config])
    _run_with_progress(config, folder)
    warn_after([folder])
    console().print(f"Run: {folder.path}")


def _run_with_progress(config: RunConfig, folder: RunFolder) -> None:
    from cppo_lab.cli.progress import SweepProgress
    from cppo_lab.quiet import quiet_libraries
    from cppo_lab.sweeps.jobs import Event
    from cppo_lab.training.run import run

    quiet_libraries()
    mirror = open_run_mirror(config, folder)
    key = folder.path.name
    label = f"{config.algo.name} seed {config.seed}"
    with SweepProgress({key: label}, {key: config.trainer.steps}, console()) as bars:

        def on_step(step: int, metrics: Mapping[str, Any]) -> None:
            bars.show(Event(key, "step", (step, metrics)))
            mirror.poll()

        def on_warmup(done: int, planned: int, loss: float) -> None:
            bars.show(Event("", "warmup", (done, planned, loss)))

        def on_activity(activity: Activity) -> None:
            bars.show(Event(key, "activity", activity))

        bars.show(Event(key, "started"))
        try:
            run(config, on_step, on_warmup, mirror.poll, on_activity=on_activity)
        except KeyboardInterrupt:
            bars.stop()
            console().print(
                "[yellow]Interrupted.[/] Run the same command to resume from the last checkpoint."
            )
            raise
        finally:
            close_mirror(mirror)
        bars.show(Event(key, "finished"))

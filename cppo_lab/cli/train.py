"""`train`: one run in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cppo_lab.cli.console import console
from cppo_lab.cli.progress import SweepProgress
from cppo_lab.config.compose import compose_run
from cppo_lab.quiet import quiet_libraries
from cppo_lab.sweeps.worker_pool import Event
from cppo_lab.tracking.mlflow_sync import NoMirror, RunMirror
from cppo_lab.tracking.run_folder import run_folder
from cppo_lab.training.preflight import check_inputs, check_memory, writable
from cppo_lab.training.run import run


def train_one(overrides: Sequence[str], config_dir: Path | None) -> None:
    """Compose, validate and do one run."""
    config = compose_run(overrides, config_dir)
    check_inputs(config)
    check_memory(config)
    writable(config.paths.output)
    folder = run_folder(config)
    if folder.status == "FINISHED":
        console().print(f"Run {folder.path} is finished already; nothing to do.")
        return
    quiet_libraries()
    mirror = RunMirror(config, folder) if config.tracking.enabled else NoMirror()
    key = folder.path.name
    with SweepProgress(
        {key: f"{config.algo.name} seed {config.seed}"}, {key: config.trainer.steps}, console()
    ) as bars:

        def on_step(step: int, metrics: Mapping[str, Any]) -> None:
            bars.show(Event(key, "step", (step, metrics)))
            mirror.poll()

        def on_warmup(done: int, planned: int, loss: float) -> None:
            bars.show(Event("", "warmup", (done, planned, loss)))

        bars.show(Event(key, "started"))
        succeeded = False
        try:
            run(config, on_step, on_warmup, mirror.poll)
            succeeded = True
        except KeyboardInterrupt:
            bars.stop()
            console().print("[yellow]Interrupted.[/] The same command goes on from the last checkpoint.")
            raise
        finally:
            mirror.close(succeeded)
        bars.show(Event(key, "finished"))
    console().print(f"Run: {folder.path}")

"""Runs by verl on two CPU processes, in commands of their own: what they are told, and which processes are theirs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
from tiny_runs import ROOT, TINY, lab

from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.training.verl.launch import MARK

PYTHON = Path(os.environ.get("CPPO_LAB_VERL_PYTHON") or ROOT / ".venv-verl" / "bin" / "python")
VERL = ("backend=verl", "backend.device=cpu", "backend.workers=2", f"backend.python={PYTHON}")
STEPS = 5


def overrides(*more: str) -> list[str]:
    return [*TINY, f"trainer.steps={STEPS}", "trainer.evaluate_every=1", "algo=cppo", *more]


def output_with_policy(warmed_up: Path, folder: Path) -> Path:
    """An output folder of its own with the tiny starting policy."""
    shutil.copytree(warmed_up / "policies", folder / "policies")
    return folder


def train(output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return lab("train", *overrides(*more), f"paths.output='{output}'", cwd=output)


def only_run(output: Path) -> RunFolder:
    (path,) = (output / "runs").iterdir()
    return RunFolder(path)


def processes(run: RunFolder, part: str) -> list[psutil.Process]:
    """The processes of a run whose command or title holds `part`."""
    found = []
    for each in psutil.process_iter():
        try:
            if part in " ".join(each.cmdline()) and each.environ().get(MARK) == str(run.path.resolve()):
                found.append(each)
        except psutil.Error:
            continue
    return found


def worker(run: RunFolder) -> psutil.Process:
    """A process that trains: verl's workers have the title of their Ray actor."""
    for driver in processes(run, "training.verl.driver"):
        for each in driver.children(recursive=True):
            if "WorkerDict" in " ".join(each.cmdline()):
                return each
    raise AssertionError("verl has no worker")


def steps_done(run: Callable[[], RunFolder]) -> int:
    try:
        return len(run().rows("metrics.jsonl"))
    except (ValueError, FileNotFoundError):
        return 0


def belongs(process: psutil.Process, run: RunFolder) -> bool:
    try:
        return (
            process.environ().get(MARK) == str(run.path.resolve())
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def left_over(run: RunFolder) -> list[psutil.Process]:
    """The processes of a run that live."""
    return [each for each in psutil.process_iter() if belongs(each, run)]

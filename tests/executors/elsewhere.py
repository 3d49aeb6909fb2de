"""Sweeps of eight tiny runs by an executor: what is left of them, and their processes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from tiny_runs import TINY, lab, start_lab

from cppo_lab.tracking.run_folder import LOCK_FILE, RunFolder

SWEEP = ("sweep", "algo=grpo,cppo", "seed=range(0,4)", "warmup.seed=0", *TINY, "--no-report", "-j", "2")

FEW = "seed=0,1"
"""Four of the runs."""


def arguments(output: Path, *executor: str) -> list[str]:
    return [*SWEEP, *executor, "-o", str(output)]


def swept(output: Path, *executor: str) -> subprocess.CompletedProcess[str]:
    return lab(*arguments(output, *executor), cwd=output.parent)


def folders(output: Path) -> dict[str, RunFolder]:
    return {path.name: RunFolder(path) for path in sorted((output / "runs").glob("*")) if path.is_dir()}


def logs(output: Path) -> dict[str, bytes]:
    """What the runs measured, bit for bit."""
    return {name: (folder.path / "metrics.jsonl").read_bytes() for name, folder in folders(output).items()}


def assert_every_run_once(output: Path, expected: dict[str, bytes], count: int = 8) -> None:
    assert {folder.status for folder in folders(output).values()} == {"FINISHED"}
    assert len(logs(output)) == count
    assert logs(output) == {name: expected[name] for name in logs(output)}


def running(output: Path) -> list[str]:
    """The runs that a process is training, with a step done."""
    return [
        name
        for name, folder in folders(output).items()
        if folder.present_status == "RUNNING" and len(folder.rows("metrics.jsonl")) > 1
    ]


def processes_below(pid: int, wanted: Callable[[str], bool]) -> list[psutil.Process]:
    found = psutil.Process(pid).children(recursive=True)
    return [each for each in found if wanted(" ".join(each.cmdline()))]


def holders(output: Path) -> list[psutil.Process]:
    """Processes that have the lock file of a run open."""
    locks = {str(folder.path / LOCK_FILE) for folder in folders(output).values()}
    found = []
    for each in psutil.process_iter():
        try:
            if locks & {file.path for file in each.open_files()}:
                found.append(each)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def start(output: Path, *executor: str) -> subprocess.Popen[str]:
    """The sweep, once one of its runs has taken a step."""
    process = start_lab(*arguments(output, *executor), cwd=output.parent)
    deadline = time.monotonic() + 180
    while not running(output):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no run began"
        time.sleep(0.05)
    return process


def end(process: subprocess.Popen[str], how: signal.Signals) -> str:
    process.send_signal(how)
    said, _ = process.communicate(timeout=120)
    return said

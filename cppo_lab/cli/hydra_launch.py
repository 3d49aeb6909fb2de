"""Hydra's multirun as a process of its own, which starts the runs by its launchers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_STOP_S = 20.0


def multirun(overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    """The command that has Hydra start the runs of one grid."""
    from cppo_lab.config.compose import search_path

    searched = search_path(overrides, config_dir)
    return [sys.executable, "-m", "cppo_lab.hydra_app", "--multirun", *searched, *overrides]


def exit_code(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command to its end; an interrupt leaves its runs a moment to end by themselves."""
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal interrupts the runs as well; they need a moment to write it to their folders.
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.terminate()
            raise

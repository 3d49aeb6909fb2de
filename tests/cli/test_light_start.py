"""`cppo-lab --help` answers at once: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import clean_environment

HEAVY = {"torch", "transformers", "mlflow", "pandas", "matplotlib", "scipy", "datasets", "hydra", "numpy"}


@pytest.mark.parametrize("arguments", [["--help"], ["sweep", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cppo_lab.cli", *arguments],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    imported = {name.split(".")[0] for name in re.findall(r"\|\s+([\w.]+)$", done.stderr, re.MULTILINE)}
    assert "cppo_lab" in imported
    assert not imported & HEAVY


def test_help_answers_quickly(tmp_path: Path) -> None:
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "cppo_lab.cli", "--help"],
            cwd=tmp_path,
            env=clean_environment(),
            capture_output=True,
            check=True,
            timeout=60,
        )
        best = min(best, time.perf_counter() - started)
    # Half a second on an idle machine; tests share theirs.
    assert best < 1.5

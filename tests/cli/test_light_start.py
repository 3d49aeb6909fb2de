"""`cppo-lab --help` answers at once: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from tiny_runs import clean_environment

HEAVY = {"torch", "transformers", "mlflow", "pandas", "matplotlib", "scipy", "datasets", "hydra", "numpy"}


def imported_by(arguments: list[str], folder: Path) -> set[str]:
    """The top-level packages that a command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cppo_lab.cli", *arguments],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.split(".")[0] for name in re.findall(r"\|\s+([\w.]+)$", done.stderr, re.MULTILINE)}


@pytest.mark.parametrize("arguments", [["--help"], ["sweep", "--help"], ["--version"], ["list", "methods"]])
def test_help_and_listings_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    imported = imported_by(arguments, tmp_path)
    assert "cppo_lab" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize(
    "arguments", [["plan", "table1"], ["sweep", "quickstart", "--dry-run"], ["config", "algo=cppo"]]
)
def test_configurations_are_checked_without_pytorch(arguments: list[str], tmp_path: Path) -> None:
    if not metadata.version("torch").endswith("+cpu"):
        pytest.skip("whether there is a GPU is asked of PyTorch, unless its build says that there is none")
    assert not imported_by(arguments, tmp_path) & {"torch", "transformers", "scipy", "matplotlib"}


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

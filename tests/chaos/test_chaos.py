"""A bounded part of `make chaos`: nothing is lost, and MLflow tells the truth afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("train", 25),
        ("sweep", 15),
        ("first", 25),
        ("store", 80),
        ("disk", 60),
        ("damage", 40),
        ("shells", 100),
        ("server", 100),
        ("config", 60),
    ],
)
def test_nothing_is_lost(name: str, count: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("campaign.py"), name, "--count", str(count), "--seed", "3"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line for line in done.stdout.splitlines()[2:] if line.startswith("| ")]
    tried, how_often, lost = (each.strip() for each in row.strip("| ").split("|")[:3])
    assert re.search(r"\d", how_often), tried
    assert lost.split()[0] == "0"

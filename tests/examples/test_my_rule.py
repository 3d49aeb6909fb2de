"""`examples/my_rule`: the commands of its README, at the size of a test, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import ROOT, TINY

PLUGIN = str(ROOT / "examples" / "my_rule")


def lab(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `cppo-lab … --plugins examples/my_rule` outside the repository."""
    command = [sys.executable, "-m", "cppo_lab", *arguments, "--plugins", PLUGIN]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_the_rule_is_listed_compared_and_checked(tmp_path: Path) -> None:
    listed = lab("list", "methods", "--json", cwd=tmp_path)
    (row,) = [each for each in json.loads(listed.stdout) if each["name"] == "first_exit"]
    assert row["trust region"] == "first_exit (delta 0.15, exit_at 1)"
    compared = lab("list", "methods", "--diff", "cppo", "first_exit", "--json", cwd=tmp_path)
    assert {"coordinate": "trust_region.kind", "cppo": "prefix_budget", "first_exit": "first_exit"} in (
        json.loads(compared.stdout)
    )
    refused = lab("config", "algo=first_exit", "algo.trust_region.exit_at=-1", cwd=tmp_path)
    assert refused.returncode == 2
    assert "algo.trust_region.exit_at=-1: must be greater than 0." in refused.stderr


@pytest.mark.slow
def test_its_sweep_trains_and_its_report_shows_it(output: Path, tmp_path: Path) -> None:
    asked = [*TINY, "trainer.steps=1", "warmup.seed=0", "seed=0", "-o", str(output)]
    done = lab("sweep", "first_exit", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in output.glob("runs/*/run.json")]
    assert {(run["method"], run["status"]) for run in runs} == {
        (name, "FINISHED") for name in ("dppo_topk_tv", "cppo", "first_exit")
    }
    (page,) = output.glob("reports/*/index.html")
    assert "first_exit" in page.read_text(encoding="utf-8")

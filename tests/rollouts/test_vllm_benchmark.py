"""benchmarks/rollout.py measures all three engines on one model in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import ROOT, clean_environment

pytestmark = pytest.mark.vllm


def test_three_engines_sample_the_same_model(tmp_path: Path) -> None:
    script, numbers = ROOT / "benchmarks" / "rollout.py", tmp_path / "rates.json"
    arguments = ["--models", "s", "--prompts", "4", "--group", "4", "--repeats", "2", "--json", str(numbers)]
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=clean_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(numbers.read_text(encoding="utf-8"))
    assert [row["engine"] for row in found["results"]] == ["native", "transformers", "vllm"]
    assert all(row["tokens_per_s"] > 0 for row in found["results"])
    # Sixteen responses by the same random weights, each engine with draws of its own.
    tokens = [row["tokens"] for row in found["results"]]
    assert max(tokens) < 3 * min(tokens)
    assert found["versions"]["torch"]

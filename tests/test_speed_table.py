"""The README's table of speeds is what the committed measurements say, and the script for GPUs runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tiny_runs import ROOT

BENCHMARKS = ROOT / "benchmarks"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_readme_has_the_table_of_the_committed_measurements() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert module("speed_table").with_table(page) == page, "benchmarks/speed_table.py README.md writes it"


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="has no <!-- speed -->"):
        module("speed_table").with_table("no table here")


def test_every_measurement_of_the_makefile_has_its_script() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    scripts = [line.split("/")[1].split(".py")[0] for line in makefile.splitlines() if "$(BENCH)/" in line]
    assert len(scripts) > 5
    assert all((BENCHMARKS / f"{name}.py").is_file() for name in scripts)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["correctness", "head", "steps"])
def test_the_script_for_gpus_runs_on_a_cpu(part: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--small", "--part", part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_workers_of_the_comparison_with_trl_answer_turn_by_turn(tmp_path: Path) -> None:
    vs_trl = module("vs_trl")
    asked = vs_trl.job("s", 4, 1, 0, 2)
    file = tmp_path / "job.json"
    file.write_text(json.dumps(asked), encoding="utf-8")
    worker = vs_trl.Worker(
        [sys.executable, str(BENCHMARKS / "iterations_lab.py"), str(file)],
        {"PYTHONPATH": str(ROOT), "PATH": ""},
        tmp_path / "lab.log",
    )
    try:
        found = [worker.iteration() for _ in range(2)]
    finally:
        worker.close()
    assert all(each["seconds"] > 0 and each["tokens"] > 1000 and each["peak_mib"] > 100 for each in found)

"""`sweep --until-resolved`: seeds are added for what is not settled, and a sweep that stopped is not run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny_runs import TINY

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sweep(tmp_path: Path, output: Path) -> list[str]:
    content = {
        "title": "Three",
        "question": "Which?",
        "overrides": [*TINY, "trainer.steps=1"],
        "axes": {"seed": [5, 3], "algo": ["pg", "grpo", "cppo"]},
        "baseline": "pg",
        "claims": [{"says": "CPPO is above PG", "contrast": "cppo - pg", "expect": "above"}],
    }
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return ["sweep", str(path), "-o", str(output), "-j", "1", "--until-resolved"]


def runs(output: Path) -> list[Path]:
    return [path for path in (output / "runs").iterdir() if path.is_dir()]


def test_what_is_settled_takes_no_more_seeds(invoke: Invoke, sweep: list[str], output: Path) -> None:
    code, out, err = invoke(*sweep, "--margin", "100", "--max-seeds", "6")
    assert code == 0, err
    assert out.count("within 100 points") == 2
    assert "6 seeds" not in out
    assert len(runs(output)) == 12
    (manifest,) = (output / "sweeps").glob("*/sweep.json")
    kept = json.loads(manifest.read_text(encoding="utf-8"))
    assert kept["axes"]["seed"] == ["3", "5", "6", "7"]
    assert kept["looks"]["pairs"] == [4, 6]
    assert kept["looks"]["family"] == 2
    assert not kept["claims"], "they are about the seeds of the file"
    page = next((output / "reports").glob("*/report.md")).read_text(encoding="utf-8")
    assert "Seeds were added until each difference from pg was settled, 6 at most" in page
    assert "adjusted p" in page
    assert "Holm" not in page

    before = {path: path.stat().st_mtime_ns for path in output.rglob("metrics.jsonl")}
    code, out, _ = invoke(*sweep, "--margin", "100", "--max-seeds", "6")
    assert code == 0
    assert "0 runs to do, 12 finished" in out
    assert {path: path.stat().st_mtime_ns for path in output.rglob("metrics.jsonl")} == before


def test_what_stays_open_takes_them_all(invoke: Invoke, sweep: list[str], output: Path) -> None:
    code, out, err = invoke(*sweep, "--margin", "0", "--max-seeds", "6", "--no-report")
    assert code == 0, err
    assert "4 seeds of all methods:" in out
    first, second = out.split("6 seeds of ")
    assert len(runs(output)) == 12 + 2 * (1 + first.count(": open"))
    assert "against pg" in second


def test_the_most_runs_are_planned_before_any_starts(invoke: Invoke, sweep: list[str], output: Path) -> None:
    code, out, err = invoke(*sweep, "--dry-run", "--max-seeds", "10")
    assert code == 0, err
    assert "30 runs, 0 finished" in out
    assert "The 2 contrasts of a panel are looked at with 4, 8 and 10 seeds" in out
    assert not output.exists() or not (output / "runs").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--max-seeds", "3"], "--max-seeds 3: must be at least 4, the seeds of the first look."),
        (["trainer.lr=1e-4,2e-4"], "varies trainer.lr"),
        (["algo=pg"], "has one method, and nothing to compare it with"),
        (["hydra/launcher=joblib"], "hydra/launcher=joblib: Hydra's launchers start all runs at once"),
    ],
)
def test_what_cannot_grow_is_refused(
    more: list[str], said: str, invoke: Invoke, sweep: list[str], output: Path
) -> None:
    code, _, err = invoke(*(each for each in sweep if each not in ("-j", "1")), *more)
    assert code == 2
    assert said in err
    assert not (output / "runs").exists()


@pytest.mark.parametrize("option", [["--margin", "2"], ["--max-seeds", "8"]])
def test_its_options_are_refused_without_it(option: list[str], invoke: Invoke, sweep: list[str]) -> None:
    code, _, err = invoke(*sweep[:-1], *option)
    assert code == 2
    assert f"{' '.join(option)}: only applies with --until-resolved." in err

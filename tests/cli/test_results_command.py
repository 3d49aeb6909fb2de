"""`results`: a file of what is done, added to, and one of its own for a sweep with overrides."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import ROOT, TINY

from cppo_lab.analysis.load.result_files import read_results
from cppo_lab.analysis.load.scores import Scoring
from cppo_lab.analysis.load.scores import score_runs as scored
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.cli.results import refuse_unplanned_rows
from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import run_id, run_ids
from cppo_lab.sweeps.sweep import find_sweep

Invoke = Callable[..., tuple[int, str, str]]
RESULTS = ROOT / "results"
SWEEP = "title: Two\nquestion: Which?\naxes: {seed: [0, 1], algo: [grpo, cppo]}\nbaseline: grpo\n"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_kept_run_by_run(invoke: Invoke, output: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "two.yaml", tmp_path / "kept"
    file.write_text(SWEEP, encoding="utf-8")
    asked = [str(file), *TINY, "-o", str(output)]
    code, _, err = invoke("results", *asked, "--to", str(folder))
    assert code == 2
    assert "none of its 4 runs is in" in err
    assert not folder.exists()

    code, out, err = invoke("sweep", *asked, "algo=grpo", "--no-report", "-j", "1")
    assert code == 0, err
    code, out, err = invoke("results", *asked, "--to", str(folder))
    assert code == 0, err
    assert "2 runs of the sweep not finished there" in " ".join(out.split())
    (path,) = folder.glob("two-*.csv")
    first = rows_of(path)
    assert [(row["method"], row["seed"]) for row in first] == [("grpo", "0"), ("grpo", "1")]
    assert all(row["final"] and row["starting_policy"] and row["accuracy"].startswith("0:") for row in first)

    code, out, err = invoke("sweep", *asked, "--no-report", "-j", "1")
    assert code == 0, err
    assert invoke("results", *asked, "--to", str(folder))[0] == 0
    both = rows_of(path)
    assert both[:2] == first
    assert [(row["method"], row["seed"]) for row in both[2:]] == [("cppo", "0"), ("cppo", "1")]


def test_rows_that_another_command_adds_meanwhile_stay(
    invoke: Invoke, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "two.yaml", tmp_path / "kept"
    file.write_text(SWEEP, encoding="utf-8")
    asked = [str(file), *TINY, "trainer.steps=1", "seed=0", "-o", str(output)]
    code, _, err = invoke("sweep", *asked, "--no-report", "-j", "1")
    assert code == 0, err
    assert invoke("results", *asked, "--to", str(folder))[0] == 0
    (path,) = folder.glob("two-*.csv")
    whole = path.read_text(encoding="utf-8")
    path.unlink()

    def score_runs(study: Study) -> tuple[RunTable, dict[str, Scoring]]:
        """Measure, while another command ends that measured the first run."""
        path.write_text(
            "".join(whole.splitlines(keepends=True)[:2]).replace("grpo", "other"), encoding="utf-8"
        )
        table, scoring = scored(study)
        return RunTable(table.runs[1:]), scoring

    monkeypatch.setattr("cppo_lab.analysis.load.scores.score_runs", score_runs)
    assert invoke("results", *asked, "--to", str(folder))[0] == 0
    assert {row["method"] for row in rows_of(path)} == {"other", "cppo"}


def begun(tmp_path: Path) -> list[str]:
    """What names a sweep of which one run says that it is done."""
    file = tmp_path / "fig7_budget.yaml"
    file.write_text("axes: {seed: [90, 91]}\n", encoding="utf-8")
    sweep = find_sweep(str(file), [f"paths.output='{tmp_path / 'out'}'"], None)[0]
    sweep.runs[0].folder.path.mkdir(parents=True)
    sweep.runs[0].folder.update_info(status="FINISHED")
    return [str(file), "-o", str(sweep.output)]


def test_rows_of_runs_that_are_not_planned_are_refused(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    shutil.copy(RESULTS / "fig7_budget.csv", folder)
    before = (folder / "fig7_budget.csv").read_bytes()
    rows = rows_of(folder / "fig7_budget.csv")
    code, _, err = invoke("results", *begun(tmp_path), "--to", str(folder))
    assert code == 2
    assert f"has {len(rows)} rows of runs that sweep fig7_budget does not plan" in err
    assert f"the first of them {rows[0]['run_id']} ({rows[0]['method']}, seed={rows[0]['seed']})" in err
    assert "remove them, or choose another folder with --to" in err
    assert (folder / "fig7_budget.csv").read_bytes() == before


@pytest.mark.parametrize("name", ["fig7_budget", "horizon"])
def test_rows_that_are_kept_are_of_planned_runs(name: str, tmp_path: Path) -> None:
    sweep = find_sweep(name, [f"paths.output='{tmp_path}'"], None)[0]
    known = read_results(RESULTS / f"{name}.csv")
    assert known.rows
    refuse_unplanned_rows(sweep, RESULTS / f"{name}.csv", known)


def test_run_has_one_identity_on_each_kind_of_machine() -> None:
    config = compose_run(["trainer.device=auto"])
    assert run_ids(config) == {run_id(compose_run([f"trainer.device={each}"])) for each in ("cpu", "cuda")}
    fixed = compose_run(["trainer.device=cpu"])
    assert run_ids(fixed) == {run_id(fixed)}


def test_folder_that_cannot_be_written_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    asked = begun(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a folder", encoding="utf-8")
    for folder in (blocked, blocked / "results"):
        code, _, err = invoke("results", *asked, "--to", str(folder))
        assert code == 2
        assert f"--to {folder}: cannot be written" in err

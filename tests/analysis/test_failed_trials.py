"""Tuning where runs diverge before their first evaluation, and where machines fail them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuning_studies import GRID, results, written

from cppo_lab.analysis.tuning import Request, Rows, rounds, rows_from_folders, rows_from_results, tuned_points
from cppo_lab.errors import UserError
from cppo_lab.sweeps.sweep import PlannedRun, plan_sweep
from cppo_lab.sweeps.sweep_file import read_sweep
from cppo_lab.sweeps.tuned_points import TunedPoint, read_tuned, write_tuned


def rising(run: PlannedRun) -> float:
    return 0.5 + 100 * run.config.trainer.lr


def with_failures(rows: Rows, rate: str, *seeds: str) -> Rows:
    return {
        key: {**row, "final": "", "status": "FAILED"}
        if row["trainer.lr"] == rate and row["seed"] in seeds
        else row
        for key, row in rows.items()
    }


def chosen(folder: Path, rate: str, *seeds: str) -> tuple[TunedPoint, ...]:
    study = written(folder, GRID)
    rows = with_failures(rows_from_results(results(folder, study, rising)), rate, *seeds)
    request = Request(read_sweep(str(study)), ("paths.output=nowhere",))
    made = tuned_points(request, *rounds(request, lambda _: rows, None))
    write_tuned(folder / "tuned" / "rates.yaml", made)
    return read_tuned("rates", study).points


def test_the_setting_of_a_failed_run_is_not_chosen_and_it_is_said_how_many_failed(tmp_path: Path) -> None:
    for point in chosen(tmp_path, "0.0004", "2"):
        assert point.setting == {"trainer.lr": 2e-4}
        assert point.notes == (
            "failed: 1 of 2 seeds at trainer.lr=0.0004, which has no mean and cannot be chosen",
        )
        (failed,) = (each for each in point.tried if each.accuracy is None)
        assert (failed.setting, failed.seeds) == ({"trainer.lr": 4e-4}, 2)


def test_a_published_setting_that_failed_has_no_regret(tmp_path: Path) -> None:
    (published,) = {point.published.setting["trainer.lr"] for point in chosen(tmp_path, "0.0004", "2")}
    points = chosen(tmp_path, {1e-4: "0.0001", 4e-4: "0.0004"}[published], "1")
    assert {(point.published.accuracy, point.published.regret) for point in points} == {(None, None)}


def test_a_method_whose_every_setting_failed_is_refused(tmp_path: Path) -> None:
    study = written(tmp_path, GRID)
    rows = rows_from_results(results(tmp_path, study, rising))
    for rate in ("5e-05", "0.0001", "0.0002", "0.0004"):
        rows = with_failures(rows, rate, "1")
    request = Request(read_sweep(str(study)), ("paths.output=nowhere",))
    with pytest.raises(UserError, match="pg: every setting that was tried has a run that diverged"):
        rounds(request, lambda _: rows, None)


def test_only_a_diverged_run_has_failed_for_good(tmp_path: Path) -> None:
    study = read_sweep(str(written(tmp_path, GRID)))
    sweep = plan_sweep(study, [f"paths.output='{tmp_path / 'out'}'"])
    diverged, killed, interrupted, evaluated = sweep.runs[:4]
    for run, state in (
        (diverged, {"status": "FAILED", "diverged": True}),
        (killed, {"status": "FAILED", "diverged": False, "reason": "its process died (signal 9)"}),
        (interrupted, {"status": "INTERRUPTED"}),
        (evaluated, {"status": "FAILED", "diverged": True}),
    ):
        run.folder.create(run.config.model_dump(mode="python"))
        run.folder.update_info(**state)
    lines = '{"step": 0, "eval/heldout/accuracy": 0.3}\n{"step": 2, "eval/heldout/accuracy": 0.1}\n'
    (evaluated.folder.path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    rows = rows_from_folders(sweep)
    assert rows[diverged.run_id]["final"] == ""
    assert killed.run_id not in rows
    assert interrupted.run_id not in rows
    # It counts with the last evaluation that it reached.
    assert float(rows[evaluated.run_id]["final"]) == 0.1

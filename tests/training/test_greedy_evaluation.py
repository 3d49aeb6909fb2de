"""Greedy accuracy beside the sampled one: in the metrics, in result files, and in the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import tiny_config

from cppo_lab.analysis.load.result_files import read_results, rows_of, run_table, write_results
from cppo_lab.analysis.load.scores import score_runs
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.tables import results_table
from cppo_lab.analysis.summary import summarise
from cppo_lab.training.run import run


def test_greedy_evaluation_stands_beside_the_sampled_one_and_changes_nothing(
    output: Path, tmp_path: Path
) -> None:
    key = "eval/heldout_greedy/accuracy"
    plain = run(tiny_config(output / "plain", "trainer.evaluate_every=1"))
    folder = run(tiny_config(output, "trainer.evaluate_every=1", "trainer.evaluate_greedy=true"))
    rows = folder.rows("metrics.jsonl")
    assert [row["step"] for row in rows if key in row] == [0, 3]
    assert all(0 <= row[key] <= 1 for row in rows if key in row)
    left = [{name: value for name, value in row.items() if "greedy" not in name} for row in rows]
    assert left == plain.rows("metrics.jsonl")
    study = load_study(output, run_folders=[folder.path])
    table, _ = score_runs(study)
    assert (table.runs[0].greedy_start, table.runs[0].greedy_final) == (rows[0][key], rows[-1][key])
    write_results(tmp_path / "adhoc.csv", rows_of(study, table))
    (read,) = run_table(read_results(tmp_path / "adhoc.csv")).runs
    assert read.greedy_final == pytest.approx(rows[-1][key])
    assert ("greedy final", True) in results_table(summarise(study)).columns
    without = load_study(output / "plain", run_folders=[plain.path])
    assert "greedy_final" not in rows_of(without, score_runs(without)[0]).rows[0]
    assert ("greedy final", True) not in results_table(summarise(without)).columns

"""The paper's numbers, and the table that lays them beside measured ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_folders import write_sweep

from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.paper_tables import benchmarks_table, paper_table
from cppo_lab.analysis.page.report import write_report
from cppo_lab.analysis.paper import BASELINE, NAMES, TABLE_1, TABLE_4
from cppo_lab.analysis.summary import summarise


def test_the_mean_of_table_4_is_table_1_and_the_mean_of_its_benchmarks() -> None:
    for place, model in enumerate(TABLE_4):
        for method, checkpoint in model.checkpoints.items():
            assert checkpoint.mean == TABLE_1[method][place]
            scores = (checkpoint.aime24, checkpoint.aime25, checkpoint.aime26)
            if checkpoint.mean is None:
                assert scores == (None, None, None)
            else:
                # Printed with two decimals, some of them cut instead of rounded.
                assert np.mean([score or 0.0 for score in scores]) == pytest.approx(
                    checkpoint.mean, abs=0.011
                )


def test_table_1_gives_the_margins_that_the_paper_s_text_gives() -> None:
    columns = {method: np.array([score or np.nan for score in scores]) for method, scores in TABLE_1.items()}
    ours = columns.pop("cppo")
    assert ours - columns[BASELINE] == pytest.approx([3.69, 1.88, 2.22, 5.56])
    assert ours - np.nanmax(list(columns.values()), axis=0) == pytest.approx([3.06, 0.91, 1.39, 5.56])


def test_only_cispo_collapsed_and_only_on_the_mixture_of_experts() -> None:
    collapsed = [(name, place) for name, row in TABLE_1.items() for place in range(4) if row[place] is None]
    assert collapsed == [("cispo", 3)]
    assert TABLE_4[3].name == "Qwen3-30B-A3B-Base"


def test_every_method_of_the_paper_is_one_of_the_lab() -> None:
    names = {path.stem for path in (Path(__file__).parents[2] / "conf" / "algo").glob("[!_]*.yaml")}
    assert set(NAMES) <= names
    assert set(NAMES) == set(TABLE_1)


def test_measured_scores_stand_beside_the_reported_ones_with_their_paired_gap_to_dppo(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo", "dppo_topk_tv", "cppo"), baseline="grpo")
    findings = summarise(load_study(tmp_path, "quickstart"))
    table = paper_table(findings)
    assert table is not None
    frame = table.frame().set_index("method")
    assert list(frame.index) == list(NAMES)
    runs = {result.label: {run.pair: run for run in result.runs} for result in findings.results}
    for score, column in (("final", "final"), ("best", "best in window")):
        gaps = [
            getattr(run, score) - getattr(runs[BASELINE][pair], score) for pair, run in runs["cppo"].items()
        ]
        assert len(gaps) == 3
        gap = frame.loc["cppo", f"{column.split()[0]} to DPPO"]
        assert gap == pytest.approx(np.mean(gaps))
        assert gap == pytest.approx(float(frame.loc["cppo", column]) - float(frame.loc[BASELINE, column]))
    assert frame.loc["cppo", "Qwen3-30B-A3B-Base"] == pytest.approx(0.5479)
    assert frame.loc["cppo", "Qwen3-30B-A3B-Base to DPPO"] == 0.0556
    assert frame.loc["minpro", "final"] == ""
    texts = {row[0].text: [cell.text for cell in row] for row in table.rows}
    assert texts["grpo"][8] == "−11.04"
    assert texts["cispo"][7] == "collapse"
    assert " to " in texts["cppo"][-1]
    assert texts[BASELINE][-2:] == ["–", "–"]


def test_without_dppo_there_is_an_order_but_no_gap(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo", "dppo_tv", "cppo"))
    table = paper_table(summarise(load_study(tmp_path, "quickstart")))
    assert table is not None
    frame = table.frame().set_index("method")
    assert frame.loc["cppo", "final"] > 0.5
    assert frame.loc["cppo", "final to DPPO"] == ""


def test_panels_are_told_apart(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("dppo_topk_tv", "cppo"), seeds=(0, 1), learning_rates=(2e-4, 4e-4))
    table = paper_table(summarise(load_study(tmp_path, "quickstart")))
    assert table is not None
    headers = [header for header, _ in table.columns]
    assert "lr=2e-4: final to DPPO" in headers
    assert len(headers) == len(set(headers)) == 1 + 8 + 10


def test_fewer_than_two_of_the_paper_s_methods_bring_no_table(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("pg", "dppo_tv", "cppo"))
    findings = summarise(load_study(tmp_path, "quickstart"))
    assert paper_table(findings) is None
    assert benchmarks_table(findings) is None
    files = write_report(tmp_path, "quickstart", formats=("html", "md", "csv"))
    assert not any(path.stem.startswith("paper") for path in files.tables)
    assert files.html is not None
    assert "Comparison with the paper" not in files.html.read_text(encoding="utf-8")


def test_the_report_shows_both_tables_and_writes_them(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("dppo_topk_tv", "cppo"), seeds=(0, 1))
    files = write_report(tmp_path, "quickstart", formats=("html", "md", "csv", "tex"))
    frames = {path.stem: pd.read_csv(path) for path in files.tables if path.suffix == ".csv"}
    assert frames["paper"].set_index("method").loc["trm_max", "Qwen3-1.7B"] == pytest.approx(0.2521)
    benchmarks = frames["paper-benchmarks"].set_index(["model", "method"])
    assert benchmarks.loc[("Qwen3-30B-A3B-Base", "CPPO"), "AIME24"] == pytest.approx(0.6479)
    assert {path.stem for path in files.tables if path.suffix == ".tex"} >= {"paper", "paper-benchmarks"}
    assert files.html is not None
    assert files.markdown is not None
    for page in (files.html, files.markdown):
        assert "accuracies are not comparable" in page.read_text(encoding="utf-8")

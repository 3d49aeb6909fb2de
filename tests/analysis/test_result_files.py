"""Result files: a row per counted run, added to block by block, the same numbers as in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from run_folders import Fault, write_sweep

from cppo_lab.analysis.claim_tests import check_claims
from cppo_lab.analysis.claims import Planned, read_claims
from cppo_lab.analysis.load.result_files import (
    PRETRAINED,
    ResultFile,
    merged,
    policy_of,
    read_results,
    read_series,
    rows_of,
    run_table,
    score,
    seeds_of,
    write_results,
)
from cppo_lab.analysis.load.scores import score_runs
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.summary import summarise
from cppo_lab.errors import UserError

COMPARED = ("dppo_tv", "cppo")


def measured(folder: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> ResultFile:
    write_sweep(folder, algos=COMPARED, seeds=seeds)
    study = load_study(folder, "quickstart")
    return rows_of(study, score_runs(study)[0])


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    results = measured(tmp_path)
    path = tmp_path / "results" / "quickstart.csv"
    write_results(path, results)
    assert read_results(path) == results
    assert read_results(tmp_path / "none.csv") == ResultFile("none", (), ())
    assert [row["method"] for row in results.rows] == [algo for algo in COMPARED for _ in range(3)]


def test_differences_from_a_file_are_those_of_the_report(tmp_path: Path) -> None:
    results = measured(tmp_path)
    study = load_study(tmp_path, "quickstart")
    (contrast,) = (c for c in summarise(study).contrasts if c.treatment == "cppo")
    claims = read_claims("x", [{"says": "so", "contrast": "cppo - dppo_tv", "expect": "above"}])
    planned = [Planned(row["panel"], row["method"], seeds_of(row), row) for row in results.rows]
    (outcome,) = check_claims(claims, run_table(results), planned)
    assert outcome.estimate is not None
    assert contrast.estimate is not None
    assert outcome.estimate.n == contrast.n == 3
    # Seven digits are kept of each score.
    assert outcome.estimate.mean == pytest.approx(contrast.estimate.mean, abs=1e-6)
    assert outcome.alone.holds == pytest.approx(contrast.p if contrast.estimate.mean > 0 else 1.0, rel=1e-3)


def test_series_hold_what_the_runs_recorded(tmp_path: Path) -> None:
    results = measured(tmp_path, (0,))
    study = load_study(tmp_path, "quickstart")
    row = results.rows[0]
    recorded = study.metrics[study.metrics["run_id"] == row["run_id"]].set_index("step")
    steps, values = read_series(row["accuracy"])
    wanted = recorded["eval/heldout/accuracy"].dropna()
    np.testing.assert_array_equal(steps, wanted.index)
    np.testing.assert_allclose(values, wanted, rtol=1e-3)


def finals(results: ResultFile) -> dict[tuple[str, str], str]:
    return {(row["method"], row["seed"]): row["final"] for row in results.rows}


def elsewhere(results: ResultFile, **changes: str) -> ResultFile:
    """The same runs with other numbers, from another kind of machine."""
    other = {"accuracy": "0:0.25 2:0.5", "final": "0.5", "start": "0.25", "device": "cpu (other)"} | changes
    return ResultFile(results.name, results.axes, tuple({**row, **other} for row in results.rows))


def test_blocks_of_seeds_are_joined_and_no_row_is_overwritten(tmp_path: Path) -> None:
    first, second = measured(tmp_path / "one", (10, 2)), measured(tmp_path / "other", (2, 3))
    joined, added = merged(first, elsewhere(second))
    assert (added.added, added.reproduced, added.replaced) == (4, 0, 0)
    assert [(row["method"], row["seed"]) for row in joined.rows] == [
        (algo, seed) for algo in COMPARED for seed in ("2", "3", "10")
    ]
    assert finals(first).items() <= finals(joined).items(), "among equals the first in the file is used"
    assert [(row["method"], row["seed"], row["final"]) for row in joined.set_aside] == [
        (algo, "2", "0.5") for algo in COMPARED
    ]
    write_results(tmp_path / "x.csv", joined)
    assert read_results(tmp_path / "x.csv").rows == joined.rows
    assert len(read_results(tmp_path / "x.csv").set_aside) == 2


def test_rows_that_a_machine_reproduces_are_left_as_they_are(tmp_path: Path) -> None:
    results = measured(tmp_path)
    # Scores within a panel change with the runs beside it, and the time with everything.
    again = elsewhere(results, commit="0123456789ab", reached_at="4", duration_s="9")
    again = ResultFile(
        again.name,
        again.axes,
        tuple(
            {**row, **{key: old[key] for key in ("accuracy", "final", "start")}}
            for row, old in zip(again.rows, results.rows, strict=True)
        ),
    )
    joined, added = merged(results, again)
    assert joined.rows == results.rows
    assert (added.added, added.reproduced) == (0, len(results.rows))


def test_other_numbers_from_the_same_machine_and_commit_are_refused(tmp_path: Path) -> None:
    results = measured(tmp_path)
    with pytest.raises(UserError, match=r"other numbers than its committed row.*give --replace"):
        merged(results, elsewhere(results, device=results.rows[0]["device"]))


def test_rows_are_replaced_on_request_alone(tmp_path: Path) -> None:
    results = measured(tmp_path)
    joined, added = merged(results, elsewhere(results), replace=True)
    assert (added.added, added.replaced) == (0, len(results.rows))
    assert set(finals(joined).values()) == {"0.5"}
    assert not joined.set_aside


def test_of_a_seed_the_machine_with_most_methods_is_used(tmp_path: Path) -> None:
    results = measured(tmp_path, (0, 1))
    lacking = ResultFile(
        results.name,
        results.axes,
        tuple(r for r in results.rows if (r["method"], r["seed"]) != ("cppo", "0")),
    )
    joined, _ = merged(lacking, elsewhere(results))
    assert len(joined.rows) == 4
    devices = {(row["method"], row["seed"]): row["device"] for row in joined.rows}
    assert {devices[method, "0"] for method in COMPARED} == {"cpu (other)"}, "both methods from one machine"
    assert {devices[method, "1"] for method in COMPARED} == {results.rows[0]["device"]}


def test_runs_that_do_not_count_have_no_row(tmp_path: Path) -> None:
    faults = {("cppo", 1): Fault("INTERRUPTED", "stopped", 4)}
    write_sweep(tmp_path, algos=COMPARED, seeds=(0, 1), faults=faults)
    study = load_study(tmp_path, "quickstart")
    assert (
        len(rows_of(study, score_runs(study)[0]).rows) == int(study.runs["counted"].sum()) < len(study.runs)
    )


def test_seeds_are_told_from_other_columns(tmp_path: Path) -> None:
    row = measured(tmp_path, (4,)).rows[0]
    assert seeds_of(row) == "seed=4"
    assert np.isnan(score({"kl_median": ""}, "kl_median"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "is no result file"),
        (lambda text: text.replace("method", "rule", 1), "lacks the column method"),
        (lambda text: text.replace(",", ";"), "lacks the column run_id"),
        (lambda text: text + "x,y\n", "line 8: has 2 cells"),
        (
            lambda text: text.replace("FINISHED,0.3", "FINISHED,x0.3", 1),
            "line 2: start=x0.3.*: must be a number",
        ),
    ],
)
def test_a_file_that_is_none_is_refused(change: Callable[[str], str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "quickstart.csv"
    write_results(path, measured(tmp_path))
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        read_results(path)


def test_a_policy_that_was_not_made_here_is_marked(tmp_path: Path) -> None:
    for row in measured(tmp_path).rows:
        assert not row["starting_policy"].endswith(PRETRAINED)
    for file in tmp_path.glob("runs/*/run.json"):
        info = json.loads(file.read_text())
        info["starting_policy"]["accuracy"] = None
        file.write_text(json.dumps(info))
    study = load_study(tmp_path, "quickstart")
    for row in rows_of(study, score_runs(study)[0]).rows:
        assert policy_of(row) == row["starting_policy"]
        assert row["starting_policy"].endswith(PRETRAINED)


def test_among_equals_the_starting_policy_of_most_rows_is_used(tmp_path: Path) -> None:
    """A panel that two machines measured alike is compared with another panel, which only the second has."""
    results = measured(tmp_path, (0,))
    again = elsewhere(results)
    other = [{**row, "run_id": f"{row['run_id']}x", "panel": "lr=2e-4"} for row in again.rows]
    joined, _ = merged(results, ResultFile(again.name, again.axes, (*again.rows, *other)))
    assert {row["device"] for row in joined.rows} == {"cpu (other)"}
    assert len(joined.rows) == 4
    assert len(joined.set_aside) == 2

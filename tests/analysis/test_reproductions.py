"""docs/reproductions.md: generated from the sweeps and the result files, which are held to one another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.claims import difference, read_claims
from analysis.figures.reproduction import contrast_rows, reproduction
from analysis.planned import planned_runs
from analysis.reproductions import (
    HEADLINE_IMAGE,
    ORDER,
    headline_block,
    page,
    read_item,
    read_items,
    readme_with,
)
from analysis.result_files import ResultFile, read_results, write_results
from cppo_lab.errors import UserError
from cppo_lab.runs.sweep_files import read_sweep, sweep_names
from cppo_lab.runs.sweeps import plan_sweep

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
FILES = sorted(RESULTS.glob("*.csv"))


def test_the_page_is_what_the_result_files_give() -> None:
    items = read_items(RESULTS)
    written = (ROOT / "docs" / "reproductions.md").read_text(encoding="utf-8")
    assert page(items, "images/reproductions") == written, "make reproductions writes it anew"


def test_the_readme_shows_what_the_result_files_give() -> None:
    block = headline_block(read_items(RESULTS), HEADLINE_IMAGE)
    assert block in (ROOT / "README.md").read_text(encoding="utf-8"), "make reproductions writes it anew"
    assert (ROOT / HEADLINE_IMAGE).is_file()


def test_every_sweep_of_the_paper_is_on_the_page() -> None:
    assert {*ORDER} == {*sweep_names()} - {"quickstart"}


@pytest.mark.parametrize("name", ORDER)
def test_a_sweep_of_the_paper_says_what_it_asks_and_claims(name: str) -> None:
    sweep = read_sweep(name)
    assert sweep.question.endswith("?") or "?" in sweep.question
    assert sweep.paper
    assert sweep.figure
    assert sweep.scales == ("lab", "paper")
    claims = read_claims(name, sweep.claims)
    assert claims
    planned = {run.method for run in planned_runs(sweep)}
    for claim in claims:
        assert {claim.treatment, claim.baseline} - {None} <= planned


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_rows_are_runs_of_the_sweep(path: Path, tmp_path: Path) -> None:
    """A row must be of a run that its sweep file still plans: the same identity, and so the same settings."""
    name, _, scale = path.stem.partition("-")
    sweep = plan_sweep(read_sweep(name, scale or "lab"), [f"paths.output='{tmp_path}'"])
    planned = {run.folder.path.name.rpartition("-")[2]: run for run in sweep.runs}
    for row in read_results(path).rows:
        assert row["run_id"] in planned, row
        run = planned[row["run_id"]]
        assert {axis: row[axis] for axis in run.axes} == dict(run.axes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_figure_can_be_drawn(path: Path) -> None:
    name, _, scale = path.stem.partition("-")
    item = read_item(name, RESULTS, scale or "lab")
    figure = reproduction(item.results, item.outcomes, item.sweep.figure)
    assert figure is not None
    figure.draw_without_rendering()
    picture = ROOT / "docs" / "images" / "reproductions" / f"{path.stem}.png"
    assert picture.is_file()


def test_the_panels_of_a_contrast_stand_together_and_share_their_scale() -> None:
    item = read_item("table1", RESULTS)
    seen = [outcome for outcome in item.outcomes if outcome.estimate is not None]
    rows = contrast_rows(seen)
    assert [row.seen for row in rows if row.seen is not None] == [outcome.estimate for outcome in seen]
    headings = [row.name for row in rows if row.seen is None]
    assert headings == list(dict.fromkeys(headings))
    assert headings[0] == "cppo − dppo_topk_tv"
    figure = reproduction(item.results, item.outcomes, "differences")
    assert figure is not None
    *curves, contrasts = figure.axes
    assert len(curves) == len(item.results.panels)
    assert len({axes.get_ylim() for axes in curves}) == 1
    highest = max(np.max(line.get_ydata()) for axes in curves for line in axes.lines)
    assert curves[0].get_ylim()[1] > highest
    assert [label.get_text() for label in contrasts.get_yticklabels()] == [row.name for row in rows]


def test_an_interval_that_goes_beyond_the_scale_ends_in_an_arrow() -> None:
    item = read_item("aa", RESULTS)
    (outcome,) = item.outcomes
    assert outcome.estimate is not None

    def edges(low: float) -> list[str]:
        wide = replace(outcome, estimate=replace(outcome.estimate, low=low))
        figure = reproduction(item.results, [wide], item.sweep.figure)
        assert figure is not None
        contrasts = figure.axes[-1]
        return [str(line.get_marker()) for line in contrasts.lines if line.get_marker() in ("<", ">")]

    assert edges(-0.29) == []
    assert edges(-0.31) == ["<"]


@pytest.mark.parametrize("name", ORDER)
def test_every_claim_is_one_that_the_sweep_can_answer(name: str, tmp_path: Path) -> None:
    item = read_item(name, tmp_path)
    assert [outcome.claim.says for outcome in item.outcomes]
    assert {outcome.claim.says for outcome in item.outcomes} == {claim["says"] for claim in item.sweep.claims}


def test_settings_that_no_claim_is_about_are_set_against_the_baseline() -> None:
    item = read_item("schedules", RESULTS)
    figure = reproduction(item.results, item.outcomes, item.sweep.figure, item.sweep.baseline)
    assert figure is not None
    named = {label.get_text() for label in figure.axes[-1].get_yticklabels()}
    others = {*item.results.methods("")} - {"weights=linear", "weights=reversed"}
    assert named == {"weights=linear − weights=reversed", "less weights=linear", *others}
    text = page([item], "images")
    (row,) = [line for line in text.splitlines() if line.startswith("| weights=uniform |")]
    seen = difference(item.results, "", "weights=uniform", "weights=linear")
    assert seen is not None
    assert seen.n == 8
    assert f"{100 * seen.mean:+.1f}".replace("-", "−") in row


def test_every_claim_measured_stands_under_what_became_of_it() -> None:
    items = read_items(RESULTS)
    told, _, _ = page(items, "images").partition("\n## Table 1")
    _, holds, fails, open_ = told.split("\n### ")
    expected = {"agrees": holds, "does not agree": fails, "not resolved": open_}
    seen = [outcome for item in items for outcome in item.outcomes if outcome.estimate is not None]
    for verdict, part in expected.items():
        claims = [outcome.claim.says for outcome in seen if outcome.verdict == verdict]
        lines = [line for line in part.splitlines() if line.startswith("| [")]
        assert [says in line for says, line in zip(claims, lines, strict=True)] == [True] * len(claims)
    assert f"{len(seen)} tests, a claim counted in every panel" in told


def test_the_readme_is_not_cut_where_its_marks_are_missing() -> None:
    with pytest.raises(UserError, match="must both stand in it"):
        readme_with("<!-- headline -->\nrest", "block")


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    text = page([read_item("fig5_soft", tmp_path)], "images")
    assert "Not run yet." in text
    assert "![" not in text


def test_results_at_the_papers_scale_have_a_section_of_their_own(tmp_path: Path) -> None:
    for name in ORDER:
        read_item(name, tmp_path, "paper")
    source = read_results(RESULTS / "fig5_soft.csv")
    rows = tuple({**row, "seed": "0"} for row in source.rows if row["seed"] == "0")
    write_results(tmp_path / "fig5_soft-paper.csv", ResultFile("x", source.axes, rows))
    text = page(read_items(tmp_path), "images")
    assert "## Figure 5, right: hard mask and soft gate, at the paper's scale" in text
    assert "(#figure-5-right-hard-mask-and-soft-gate-at-the-papers-scale)" in text
    assert "images/fig5_soft-paper.png" in text

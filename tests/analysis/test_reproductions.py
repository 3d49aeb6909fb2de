"""docs/reproductions.md: generated from the sweeps and the result files, which are held to one another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cppo_lab.analysis.claim_tests import FAILS, HOLDS, INCONCLUSIVE, ClaimTest, p_values
from cppo_lab.analysis.claims import read_claims
from cppo_lab.analysis.contrasts import Contrast, Pair, difference
from cppo_lab.analysis.formatting import points
from cppo_lab.analysis.load.result_files import (
    ResultFile,
    policy_of,
    read_results,
    run_table,
    seeds_of,
    write_results,
)
from cppo_lab.analysis.paper import reported_differences
from cppo_lab.analysis.reproductions.build import HEADLINE_IMAGE, headline_block, readme_with, write
from cppo_lab.analysis.reproductions.document import page, verdict_in_bold
from cppo_lab.analysis.reproductions.figure import contrast_rows, mean_curve, reproduction, shared
from cppo_lab.analysis.reproductions.items import ORDER, OWN, read_item, read_items
from cppo_lab.analysis.reproductions.planned import planned_runs
from cppo_lab.analysis.reproductions.step_size_section import step_size_figures
from cppo_lab.analysis.run_table import Run
from cppo_lab.analysis.statistics import t_interval
from cppo_lab.errors import UserError
from cppo_lab.sweeps.sweep import plan_sweep
from cppo_lab.sweeps.sweep_file import read_sweep, sweep_names

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


def test_the_readme_sets_methods_at_their_best_beside_the_old_headline() -> None:
    items = read_items(RESULTS)
    block = headline_block(items, HEADLINE_IMAGE)
    best, old = block.index("| each at its best |"), block.index("| claim of the CPPO paper |")
    assert best < block.index("these runs use one learning rate") < old
    (item,) = (item for item in items if item.sweep.name == "tuned_table1")
    expected = [t for t in item.tests if t.claim.measure == "credited" or t.claim.headline]
    assert all(test.estimate is not None for test in expected)
    assert block[best:old].count("\n| ") - 1 == len(expected) > 0


def test_every_sweep_has_a_place_on_the_page() -> None:
    assert {*ORDER, *OWN} == {*sweep_names()} - {"quickstart"}


@pytest.mark.parametrize("name", ORDER)
def test_a_sweep_of_the_paper_says_what_it_asks_and_claims(name: str) -> None:
    sweep = read_sweep(name)
    assert "?" in sweep.question
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
    places = {(run.panel, run.method) for run in planned_runs(read_sweep(name, scale or "lab"))}
    rows = read_results(path).rows
    assert {(row["panel"], row["method"]) for row in rows} <= places
    alike = [(row["panel"], row["method"], seeds_of(row), policy_of(row)) for row in rows]
    assert len({*alike}) == len(alike)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_figure_can_be_drawn(path: Path) -> None:
    name, _, scale = path.stem.partition("-")
    item = read_item(name, RESULTS, scale or "lab")
    images = ROOT / "docs" / "images" / "reproductions"
    if item.step_size is not None:
        drawn = step_size_figures(item)
        assert drawn
        assert all((images / f"{each}.png").is_file() for each in drawn)
        return
    figure = reproduction(item.table, item.tests, item.sweep.figure, item.sweep.baseline)
    assert figure is not None
    figure.draw_without_rendering()
    told = {text.get_text() for axes in figure.axes for text in axes.texts}
    for test in item.tests:
        assert test.estimate is None or any(f"n = {test.estimate.n}" in text for text in told)
    assert (images / f"{path.stem}.png").is_file()


def test_the_panels_of_a_contrast_stand_together_and_share_their_scale() -> None:
    item = read_item("table1", RESULTS)
    seen = [outcome for outcome in item.tests if outcome.estimate is not None]
    rows = contrast_rows(seen)
    assert [row.seen for row in rows if row.seen is not None] == [outcome.estimate for outcome in seen]
    headings = [row.name for row in rows if row.seen is None]
    assert headings == list(dict.fromkeys(headings))
    assert headings[0] == "cppo − dppo_topk_tv"
    figure = reproduction(item.table, item.tests, "differences")
    assert figure is not None
    *curves, contrasts = figure.axes
    assert len(curves) == len(item.table.panels)
    assert len({axes.get_ylim() for axes in curves}) == 1
    highest = max(np.max(line.get_ydata()) for axes in curves for line in axes.lines)
    assert curves[0].get_ylim()[1] > highest
    assert [label.get_text() for label in contrasts.get_yticklabels()] == [row.name for row in rows]


def test_an_interval_that_goes_beyond_the_scale_ends_in_an_arrow() -> None:
    item = read_item("aa", RESULTS)
    (outcome,) = item.tests
    assert outcome.contrast.estimate is not None

    def edges(low: float) -> list[str]:
        contrast = replace(outcome.contrast, estimate=replace(outcome.contrast.estimate, low=low))
        wide = replace(outcome, contrast=contrast)
        figure = reproduction(item.table, [wide], item.sweep.figure)
        assert figure is not None
        contrasts = figure.axes[-1]
        return [str(line.get_marker()) for line in contrasts.lines if line.get_marker() in ("<", ">")]

    assert edges(-0.29) == []
    assert edges(-0.31) == ["<"]


@pytest.mark.parametrize("name", ORDER)
def test_every_claim_is_one_that_the_sweep_can_answer(name: str, tmp_path: Path) -> None:
    item = read_item(name, tmp_path)
    assert [test.claim.says for test in item.tests]
    assert {test.claim.says for test in item.tests} == {claim["says"] for claim in item.sweep.claims}


def test_settings_that_no_claim_is_about_are_set_against_the_baseline() -> None:
    item = read_item("schedules", RESULTS)
    figure = reproduction(item.table, item.tests, item.sweep.figure, item.sweep.baseline)
    assert figure is not None
    named = {label.get_text() for label in figure.axes[-1].get_yticklabels()}
    others = {*item.table.methods("")} - {"weights=linear", "weights=reversed"}
    assert named == {"weights=linear − weights=reversed", "less weights=linear", *others}
    text = page([item], "images")
    (row,) = [line for line in text.splitlines() if line.startswith("| weights=uniform |")]
    seen = difference(item.table.of("", "weights=uniform"), item.table.of("", "weights=linear"))
    assert seen is not None
    assert seen.n == 8
    assert points(seen.mean) in row


def test_every_claim_measured_stands_under_what_became_of_it() -> None:
    items = read_items(RESULTS)
    told, _, _ = page(items, "images").partition("\n## Table 1")
    _, by_claim, holds, fails, open_, own = told.split("\n### ")
    tested = [outcome for item in items for outcome in item.tests if outcome.repeats is None]
    seen = [outcome for outcome in tested if outcome.estimate is not None]
    expected = {
        holds: [each for each in seen if not each.claim.own and each.verdict == HOLDS],
        fails: [each for each in seen if not each.claim.own and each.verdict == FAILS],
        open_: [each for each in seen if not each.claim.own and each.verdict == INCONCLUSIVE],
        own: [each for each in seen if each.claim.own],
    }
    for part, outcomes in expected.items():
        lines = [line for line in part.splitlines() if line.startswith("| [")]
        found = zip(outcomes, lines, strict=True)
        assert all(each.claim.says in line and verdict_in_bold(each) in line for each, line in found)
    of_paper = [each for each in seen if not each.claim.own]
    assert f"{len(of_paper)} tests of the paper's claims" in told
    claims = {(each.sweep, each.claim.says) for each in of_paper}
    assert by_claim.count("\n| ") - 2 == len(claims)


def test_a_contrast_that_another_sweep_has_on_more_seeds_is_told_with_its_verdict() -> None:
    items = read_items(RESULTS)
    (staleness,) = [item for item in items if item.sweep.name == "staleness"]
    repeated = [each for each in staleness.tests if each.repeats is not None]
    assert {each.panel for each in repeated} == {"regime=mild", "regime=many_updates", "regime=mismatch"}
    for each in repeated:
        assert each.repeats is not None
        assert each.repeats.sweep == "table1"
        assert verdict_in_bold(each).startswith(verdict_in_bold(each.repeats))
        assert verdict_in_bold(each).endswith("seeds of table1")


@pytest.mark.parametrize(
    ("expect", "mean", "half", "said"),
    [
        ("above", 0.05, 0.01, "**holds**"),
        ("above", -0.05, 0.01, "**does not hold** (opposite)"),
        ("above", 0.005, 0.01, "**does not hold** (less than 3 points)"),
        ("equal", 0.05, 0.01, "**does not hold** (different)"),
        ("not zero", 0.005, 0.01, "**does not hold** (within 3 points of zero)"),
    ],
)
def test_the_kinds_of_disagreement_are_told_apart(expect: str, mean: float, half: float, said: str) -> None:
    assert verdict_in_bold(outcome_of(expect, mean, half)) == said


def test_what_is_not_resolved_says_how_many_seeds_would_and_which_way() -> None:
    assert verdict_in_bold(outcome_of("above", 0.01, 0.03)).startswith("inconclusive (")
    towards, against = outcome_of("above", 0.04, 0.05), outcome_of("above", -0.01, 0.05)
    assert " seeds to detect it)" in verdict_in_bold(towards)
    assert "exclude" not in verdict_in_bold(towards)
    assert " seeds to exclude 3 points)" in verdict_in_bold(against)
    assert "to detect a difference" in verdict_in_bold(outcome_of("equal", 0.02, 0.03))


def outcome_of(expect: str, mean: float, half: float, count: int = 16) -> ClaimTest:
    (made,) = read_claims("mine", [{"says": "so", "contrast": "a - b", "expect": expect}])
    values = np.resize([-1.0, 1.0], count)
    estimate = t_interval(mean + values * half / t_interval(values).high)
    alone = p_values(made, estimate)
    contrast = Contrast("a", "b", (Pair(mean, 0.0, frozenset()),) * count, estimate)
    return ClaimTest(made, "", contrast, count, alone, alone)


def test_a_method_that_fell_below_its_start_is_marked() -> None:
    items = read_items(RESULTS)
    text = page(items, "images")
    (fell,) = [line for line in text.splitlines() if "| CPPO is above MinPRO (model=m," in line]
    (rose,) = [line for line in text.splitlines() if "| CPPO is above DPPO (model=m," in line]
    assert ") † |" in fell
    assert "†" not in rose


def test_the_papers_own_differences_stand_beside_those_measured() -> None:
    differences = reported_differences("cppo", "cispo")
    assert np.round(differences, 4).tolist() == [0.0306, 0.0091, 0.0153]  # it collapsed on the fourth
    assert reported_differences("cppo", "ppo") == []


def test_a_run_that_ends_early_goes_on_at_its_last_accuracy() -> None:
    short = np.array([0, 2]), np.array([0.3, 0.1])
    long = np.array([0, 2, 4]), np.array([0.3, 0.5, 0.6])
    runs = [Run(accuracy=short, budget=short), Run(accuracy=long, budget=long)]
    places, means = mean_curve(runs, "accuracy")
    assert places.tolist() == [0, 2, 4]
    np.testing.assert_allclose(means, [0.3, 0.3, 0.35])
    _, budgets = mean_curve(runs, "budget")
    np.testing.assert_allclose(budgets, [0.3, 0.3, 0.6])


def test_curves_are_over_the_seeds_that_all_methods_have() -> None:
    results = read_results(RESULTS / "fig5_soft.csv")
    assert [len(run_table(results).of("", method)) for method in ("cppo", "cppo_soft", "dppo_topk_tv")] == [
        48,
        48,
        28,
    ]
    seeds = [[run.seeds for run in each] for each in shared(run_table(results), "").values()]
    assert seeds[0] == seeds[1] == seeds[2]
    assert len(seeds[0]) == 28
    apart = ResultFile(
        "x",
        results.axes,
        tuple(row for row in results.rows if (row["method"] == "cppo") == (int(row["seed"]) > 9)),
    )
    assert {method: len(each) for method, each in shared(run_table(apart), "").items()}["cppo"] == 38


def test_results_that_are_not_there_make_no_page(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results=.*none: no such folder"):
        write(tmp_path / "none", tmp_path)


def test_the_readme_is_not_cut_where_its_marks_are_missing() -> None:
    with pytest.raises(UserError, match="must both be in it"):
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


def test_a_grid_that_leaves_a_threshold_to_its_methods_is_planned_as_it_is_run(tmp_path: Path) -> None:
    file = read_sweep("delta_sensitivity")
    run = {
        (each.axes["algo"], each.axes["algo.trust_region.delta"], each.axes["trainer.lr"])
        for each in plan_sweep(file, [f"paths.output='{tmp_path}'"]).runs
    }
    planned = {
        (each.method, each.axes["algo.trust_region.delta"], each.axes["trainer.lr"])
        for each in planned_runs(file)
    }
    assert planned == run
    assert ("pg", "none", "0.0001") in planned

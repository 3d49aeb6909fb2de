"""How soon methods learned, how often they collapsed, and what their seeds can resolve."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_folders import Fault, write_sweep

from cppo_lab.analysis import statistics, verdict_text
from cppo_lab.analysis.contrasts import ALPHA, Contrast, Pair, adjusted
from cppo_lab.analysis.formatting import magnitude
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.method_notes import threshold_in_words
from cppo_lab.analysis.page.report import write_report
from cppo_lab.analysis.page.tables import learning_table, stability_table
from cppo_lab.analysis.run_table import ACCURACY
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.summary import Summary, summarise


def study_of(tmp_path: Path, **options: object) -> tuple[Study, Summary]:
    write_sweep(tmp_path, **options)  # type: ignore[arg-type]
    study = load_study(tmp_path, "quickstart")
    return study, summarise(study)


def set_accuracies(tmp_path: Path, curves: dict[str, dict[int, float]]) -> None:
    """Replace the recorded accuracies of every run of a method, by step."""
    for folder in (tmp_path / "runs").iterdir():
        wanted = curves[folder.name.rsplit("-", 1)[0]]
        path = folder / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [{key: value for key, value in row.items() if key != ACCURACY} for row in rows]
        written = [row | ({ACCURACY: wanted[row["step"]]} if row["step"] in wanted else {}) for row in kept]
        path.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")


def hand_made(tmp_path: Path) -> tuple[Study, Summary]:
    """Two methods from 0.3: grpo ends at 0.7 and passes 0.5 at step 6, pg stays at 0.4."""
    write_sweep(tmp_path, algos=("grpo", "pg"), seeds=(0, 1), steps=12, evaluate_every=3)
    set_accuracies(
        tmp_path,
        {
            "grpo": {0: 0.3, 3: 0.45, 6: 0.5, 9: 0.7, 12: 0.9},
            "pg": {0: 0.3, 3: 0.4, 6: 0.4, 9: 0.4, 12: 0.4},
        },
    )
    study = load_study(tmp_path, "quickstart")
    return study, summarise(study)


def test_the_threshold_is_halfway_to_the_highest_mean_final_and_the_same_for_all(tmp_path: Path) -> None:
    _, summary = hand_made(tmp_path)
    # grpo's final is the mean of 0.5, 0.7 and 0.9; it starts at 0.3.
    assert summary.panels[0].scoring.threshold == pytest.approx((0.3 + 0.7) / 2)
    grpo, pg = summary.results
    assert (grpo.median_step, grpo.reached) == (6.0, 2)
    assert (pg.median_step, pg.reached) == (math.inf, 0)
    table = learning_table(summary)
    assert table is not None
    rows = {row[0].text: row for row in table.rows}
    assert [cell.text for cell in rows["grpo"][-2:]] == ["6", "2 of 2"]
    assert [cell.text for cell in rows["pg"][-2:]] == ["> 12", "0 of 2"]
    assert "evaluated at 50.0% or more" in table.caption
    assert rows["grpo"][4].value == pytest.approx((0.375 + 0.475 + 0.6 + 0.8) / 4)


def test_where_nothing_rose_there_is_no_threshold(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo", "pg"), seeds=(0, 1), steps=4, evaluate_every=2)
    set_accuracies(tmp_path, {name: {0: 0.3, 2: 0.3, 4: 0.2} for name in ("grpo", "pg")})
    summary = summarise(load_study(tmp_path, "quickstart"))
    assert math.isnan(summary.panels[0].scoring.threshold)
    assert threshold_in_words(summary) == "no threshold (no method ended above its start)"
    table = learning_table(summary)
    assert table is not None
    assert [cell.text for cell in table.rows[0][-2:]] == ["–", "–"]


def test_a_diverged_run_is_carried_on_within_the_window_of_the_others(tmp_path: Path) -> None:
    faults = {("pg", 0): Fault("FAILED", "loss is nan", 4, True)}
    study, summary = study_of(tmp_path, algos=("grpo", "pg"), seeds=(0, 1), faults=faults)
    dead = next(run for run in summary.results[1].runs if run.seeds == "seed=0")
    rows = study.metrics[(study.metrics["run_id"] == dead.run_id)].dropna(subset=[ACCURACY])
    steps, values = rows["step"].to_numpy(), rows[ACCURACY].to_numpy()
    assert steps[-1] == 4
    expected = np.trapezoid([*values, values[-1]], [*steps, 12]) / 12
    assert dead.area == pytest.approx(expected)


def test_a_window_longer_than_the_runs_is_cut_to_them(tmp_path: Path) -> None:
    study, summary = study_of(tmp_path, algos=("grpo",), seeds=(0, 1))
    longer, shorter = (summarise(replace(study, window=window)) for window in (400, 6))
    assert longer.panels[0].scoring == summary.panels[0].scoring
    assert shorter.panels[0].scoring.window == 6
    assert shorter.panels[0].scoring.evaluations_in_window == 4
    assert all(run.best_step <= 6 for run in shorter.results[0].runs)


def test_collapses_carry_the_interval_of_their_share(tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, algos=("pg", "grpo"), seeds=range(4))
    pg, grpo = summary.results
    assert (pg.collapses, grpo.collapses) == (4, 0)
    assert pg.collapse_interval == statistics.share_interval(4, 4)
    table = stability_table(summary)
    assert table is not None
    # One minus the fourth root of 0.025 is 60.2%.
    assert [cell.text for cell in table.rows[1][4:6]] == ["0 of 4", "0.0 to 60.2"]


def seen(mean: float, sd: float, pairs: int = 5) -> Contrast:
    half = 2.776 * sd / math.sqrt(pairs)
    estimate = Estimate(mean, mean - half, mean + half, pairs, sd)
    return Contrast("a", "b", (Pair(mean, 0.0, frozenset()),) * pairs, estimate)


def test_power_is_stated_at_the_level_of_holm_s_first_step() -> None:
    three = adjusted([seen(0.02, 0.04), seen(-0.1, 0.04), seen(0.0, 0.04)])
    for made in three:
        level = 1 - ALPHA / 3
        assert made.smallest_detectable == statistics.detectable_difference(0.04, 5, 0.8, level)
    assert three[0].seeds_needed == statistics.pairs_to_detect(0.02, 0.04, 0.8, 1 - ALPHA / 3)
    assert three[2].seeds_needed is None
    (alone,) = adjusted([seen(0.02, 0.04)])
    assert alone.smallest_detectable < three[0].smallest_detectable


def test_a_difference_of_that_size_survives_holm_with_the_stated_probability() -> None:
    generator = np.random.default_rng(5)
    sd, pairs, tests = 0.04, 6, 4
    (made, *_) = adjusted([seen(0.01, sd, pairs)] * tests)
    found = 0
    for _ in range(1500):
        # The others show nothing, which is the worst for the first one's adjusted p.
        sample = generator.normal(made.smallest_detectable, sd, pairs)
        p = [
            statistics.t_p(sample.mean(), sample.std(ddof=1), pairs),
            *([1.0] * (tests - 1)),
        ]
        found += statistics.holm(np.array(p))[0] < ALPHA
    assert found / 1500 == pytest.approx(0.8, abs=0.035)


def test_the_power_of_every_comparison_is_said_in_words(tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, seeds=range(5))
    said = verdict_text.power_statements(summary.panels[0])
    assert len(said) == len(summary.contrasts) == 3
    for sentence, made in zip(said, summary.contrasts, strict=True):
        assert sentence.startswith(f"{made.treatment} against dppo_tv: 5 pairs detect a true difference of ")
        assert f" {100 * made.smallest_detectable:.1f} points or more with 80% power" in sentence
        if made.seeds_needed is not None and math.isfinite(made.seeds_needed):
            assert f"takes about {made.seeds_needed} seeds." in sentence


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, "no pairs, so power is unknown."),
        (Estimate(0.1, math.nan, math.nan, 1, math.nan), "one pair has no spread, so power is unknown."),
        (Estimate(0.1, 0.1, 0.1, 3, 0.0), "the pairs have no spread, so power is unknown."),
        (
            Estimate(0.0001, -1.0, 1.0, 2, 0.2),
            "2 pairs detect no difference with 80% power, however large; detecting the observed difference (±0.0 "
            "points) takes over 1,000 seeds.",
        ),
    ],
)
def test_what_cannot_be_said_of_power_is_not(seen: Estimate | None, expected: str, tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, algos=("grpo", "dppo_tv"), seeds=(0, 1))
    panel = summary.panels[0]
    made = replace(panel.contrasts[0], estimate=seen)
    (sentence,) = verdict_text.power_statements(replace(panel, contrasts=(made,)))
    assert sentence == f"grpo against dppo_tv: {expected}"


def test_panels_of_several_model_sizes_are_named_with_them(tmp_path: Path) -> None:
    study, _ = study_of(tmp_path, algos=("grpo", "pg"), seeds=(0, 1), learning_rates=(2e-4, 4e-4))
    assert verdict_text.panel_title(study, "lr=2e-4") == "lr=2e-4"
    sizes = study.runs["panel"].map({"lr=2e-4": 126_208.0, "lr=4e-4": 8.2e9})
    scaled = replace(study, runs=study.runs.assign(parameters=sizes))
    assert verdict_text.panel_title(scaled, "lr=2e-4") == "lr=2e-4 (0.13 M parameters)"
    assert verdict_text.panel_title(scaled, "lr=4e-4") == "lr=4e-4 (8.2 B parameters)"
    assert magnitude(None) == "–"


def test_the_report_says_what_the_seeds_can_resolve(tmp_path: Path) -> None:
    write_sweep(tmp_path, seeds=(0, 1, 2))
    files = write_report(tmp_path, "quickstart", formats=("html", "md"))
    for page in (files.html, files.markdown):
        assert page is not None
        text = page.read_text(encoding="utf-8").replace("\\_", "_")
        assert "Statistical power" in text
        assert "grpo against dppo_tv: 3 pairs detect" in text
        assert "Steps to threshold: by when half of the runs" in text

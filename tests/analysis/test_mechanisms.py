"""The figures of mechanisms: what they are drawn from, what they leave out, and what they say where they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_drawing import data_of, drawn
from matplotlib.figure import Figure
from run_folders import write_sweep

from cppo_lab.analysis.figures import profiles
from cppo_lab.analysis.figures.gallery import ablations, rule_agreement, threshold_along_a_response
from cppo_lab.analysis.figures.style import cell_edges
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.exhibits import Exhibit, exhibits
from cppo_lab.analysis.summary import summarise

DELTA = 0.15


def tokens(costs: list[float], reasons: list[str], *, budget: bool = True) -> dict[str, Any]:
    """A record whose prefix leaves 0.5 minus what came before."""
    left = [0.5 - sum(costs[:place]) for place in range(len(costs))]
    return {
        "text": [f"t{place}" for place in range(len(costs))],
        "delta": DELTA,
        "divergence": [2 * cost for cost in costs],
        "weight": [0.5] * len(costs),
        "threshold": [min(DELTA, value) for value in left] if budget else [DELTA] * len(costs),
        "prefix_threshold": left if budget else None,
        "masked": reasons,
    }


def keep_responses(study: Study, method: str, step: int, records: list[dict[str, Any] | None]) -> None:
    """Write sample files of `method`'s runs that hold these token records."""
    for folder in study.runs.loc[study.runs["method"] == method, "folder"]:
        rows = [{"prompt": "p", "completion": "c", "reward": 1.0, "tokens": record} for record in records]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "samples" / f"step_{step:06d}.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Its runs keep no responses: tests write those they are about."""
    for folder in write_sweep(tmp_path, seeds=(0, 1)):
        for path in (folder / "samples").iterdir():
            path.unlink()
    return load_study(tmp_path, "quickstart")


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def mechanisms(study: Study) -> list[Exhibit]:
    return [one for one in exhibits(study, summarise(study)) if one.section == "mechanisms"]


def test_every_exhibit_is_drawn_or_says_why_not(study: Study) -> None:
    for one in exhibits(study, summarise(study)):
        assert one.caption.endswith(".")
        assert (one.figure is None) == one.caption.startswith("Cannot be drawn:")


def test_a_study_without_records_says_so_in_every_caption(tmp_path: Path) -> None:
    missing = ("budget/effective", "mask/budget_share")
    write_sweep(
        tmp_path,
        algos=("pg", "grpo"),
        seeds=(0,),
        profiles=False,
        missing_metrics={"pg": missing, "grpo": missing},
    )
    found = mechanisms(load_study(tmp_path, "quickstart"))
    assert len(found) == 8
    assert all(one.figure is None for one in found)
    # Positions and both maps lack the same profiles.
    assert len({one.caption for one in found}) == 6


def test_each_panel_has_figures_of_its_own(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0,), learning_rates=(2e-4, 4e-4))
    found = mechanisms(load_study(tmp_path, "quickstart"))
    names = [one.name for one in found]
    assert len(names) == 16
    assert len(set(names)) == 16
    assert "Divergence by position and step, lr=2e-4" in {one.title for one in found}


def test_a_map_holds_the_mean_over_seeds_weighted_by_tokens(study: Study) -> None:
    group = study.grouping.groups[1]
    runs = study.runs.index[study.runs["group"] == group.label]
    for run_id, count, value in zip(runs, (100, 300), (0.1, 0.3), strict=True):
        rows = (study.profiles["run_id"] == run_id) & (study.profiles["kind"] == "relative")
        study.profiles.loc[rows, ["count", "divergence_mean"]] = (count, value)
    rows = profiles.relative_profiles(study, group)
    steps, edges, values = profiles.mean_by_position_and_step(rows, "divergence_mean")
    assert steps.tolist() == [4, 8, 12]
    assert (edges[0], edges[-1], len(edges)) == (0.0, 1.0, 21)
    assert values == pytest.approx(np.full((20, 3), 0.25))


def test_methods_that_mask_nothing_have_no_map_of_masking(study: Study) -> None:
    maps = (drawn("divergence_map", study, ""), drawn("masking_map", study, ""))
    titles = [{axes.get_title(loc="left") for axes in figure.axes} - {""} for figure in maps]
    assert titles[0] == {"pg", "grpo", "dppo_tv", "cppo"}
    assert titles[1] == {"grpo", "dppo_tv", "cppo"}


@pytest.mark.parametrize("centres", [[3.0], [2.0, 4.0], [1.0, 2.0, 12.0]])
def test_cells_lie_around_their_centres(centres: list[float]) -> None:
    edges = cell_edges(np.array(centres))
    assert (np.diff(edges) > 0).all()
    assert all(low < centre < high for low, centre, high in zip(edges, centres, edges[1:], strict=False))


def test_agreement_is_summed_over_steps_and_seeds(study: Study) -> None:
    seen = rule_agreement.overlap(study, study.grouping.groups[0])
    assert seen is not None
    assert seen.tokens == 1000 * 3 * 2
    assert seen.masked_share.tolist() == [0.04, 0.06]
    assert seen.jaccard[0, 1] == pytest.approx(30 / 70)
    assert {"4%", "6%", "43%"} <= texts(drawn("rule_agreement", study, ""))


def test_rules_that_mask_nothing_agree_about_nothing() -> None:
    seen = rule_agreement.Overlap(("a", "b"), 10, np.zeros((2, 2), dtype=np.int64))
    assert np.isnan(seen.jaccard).all()


def test_the_typical_response_has_the_median_of_what_the_budget_masked(study: Study) -> None:
    masked = [["budget"] * count + [""] * (4 - count) for count in (0, 1, 4, 2)]
    records = [tokens([0.1, 0.2, 0.1, 0.1], reasons) for reasons in masked]
    keep_responses(study, "cppo", 12, [*records, None])
    (shown,) = threshold_along_a_response.responses(data_of(study, ""))
    assert (shown.method, shown.step, shown.count("budget")) == ("cppo", 12, 2)
    assert shown.cost == pytest.approx([0.1, 0.2, 0.1, 0.1])
    assert shown.prefix_threshold is not None
    assert shown.threshold == pytest.approx(np.minimum(shown.prefix_threshold, DELTA))


def test_bars_end_at_the_top_and_thresholds_stay_in_sight(study: Study) -> None:
    keep_responses(study, "cppo", 12, [tokens([0.02, 5.0, 0.01], ["", "threshold", "budget"])])
    keep_responses(study, "dppo_tv", 12, [tokens([0.02, 0.01], ["", ""], budget=False)])
    figure = drawn("threshold_along_a_response", study, "")
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == ["dppo_tv", "cppo"]
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low <= 0.0
        assert DELTA < high <= 2.2 * DELTA
        assert all(bar.get_height() <= high for bar in axes.patches if hasattr(bar, "get_height"))
    # After the tall token the prefix leaves less than nothing.
    assert figure.axes[1].get_ylim()[0] < -4


@pytest.mark.parametrize(
    "text", ["$x_1^$", "<script>", "\u202e\u200b", "a" * 99, "\n", "\t ", "é\u0301", "漢字", "\ud800"]
)
def test_any_token_can_name_a_bar(study: Study, text: str) -> None:
    record = tokens([0.01, 0.2], ["", "threshold"])
    keep_responses(study, "cppo", 12, [record | {"text": [text, "x"]}])
    figure = drawn("threshold_along_a_response", study, "")
    figure.draw_without_rendering()


def test_a_long_response_is_cut_and_its_tokens_are_counted_instead_of_named(study: Study) -> None:
    keep_responses(study, "cppo", 12, [tokens([0.001] * 3000, [""] * 3000)])
    (shown,) = threshold_along_a_response.responses(data_of(study, ""))
    assert len(shown.cost) == len(shown.masked) == len(shown.texts) == threshold_along_a_response.MOST_TOKENS
    figure = drawn("threshold_along_a_response", study, "")
    figure.draw_without_rendering()
    assert "t0" not in {label.get_text() for label in figure.axes[0].get_xticklabels()}


def test_ablations_stand_beside_dppo_and_name_what_did_not_run(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("cppo", "cppo_no_budget", "cppo_kl", "dppo_tv", "grpo"), seeds=(0, 1))
    study = load_study(tmp_path, "quickstart")
    assert [one.item for one in ablations.drawable(data_of(study, ""))] == [
        "Figure 5, left",
        "Figure 6, middle",
    ]
    figure = drawn("ablations", study, "")
    legends = [{text.get_text().split()[0] for text in axes.get_legend().get_texts()} for axes in figure.axes]
    assert legends == [{"cppo", "cppo_no_budget", "dppo_tv"}, {"cppo", "cppo_kl", "dppo_tv"}]
    absent = "; ".join(ablations.missing(data_of(study, "")))
    assert "cppo_no_budget, cppo_shuffled" in absent
    assert "Figure 5, left" not in absent


def test_one_method_under_two_settings_is_an_ablation_of_its_settings(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("cppo",), seeds=(0,), learning_rates=(2e-4, 4e-4))
    study = load_study(tmp_path, "quickstart")
    assert [one.item for one in ablations.drawable(data_of(study, ""))] == ["Figure 6, left"]

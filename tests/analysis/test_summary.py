"""Who is said to be ahead, and who is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_folders import Fault, write_run, write_sweep

from cppo_lab.analysis import method_notes, verdict_text
from cppo_lab.analysis.contrasts import Contrast, Pair
from cppo_lab.analysis.grouping import Group, find_baseline
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.method_notes import final_in_words, window_in_words
from cppo_lab.analysis.run_table import ACCURACY
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.summary import PanelSummary, Summary, summarise


def study_of(tmp_path: Path, **options: object) -> tuple[Study, Summary]:
    write_sweep(tmp_path, **options)  # type: ignore[arg-type]
    study = load_study(tmp_path, "quickstart")
    return study, summarise(study)


def test_final_accuracy_is_the_mean_of_the_last_three_evaluations(tmp_path: Path) -> None:
    study, summary = study_of(tmp_path, algos=("grpo",), seeds=(0,))
    recorded = study.metrics[ACCURACY].dropna().tolist()
    assert summary.panels[0].scoring.final_evaluations == 3
    assert summary.results[0].runs[0].final == pytest.approx(np.mean(recorded[-3:]))


def test_with_fewer_than_four_evaluations_the_last_one_is_final(tmp_path: Path) -> None:
    study, summary = study_of(tmp_path, algos=("grpo",), seeds=(0,), steps=6, evaluate_every=2)
    assert summary.panels[0].scoring.final_evaluations == 1
    assert summary.results[0].runs[0].final == study.metrics[ACCURACY].dropna().iloc[-1]


def test_a_collapse_is_lower_and_a_tie_is_not_resolved(tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, seeds=range(5))
    verdicts = {contrast.treatment: contrast.verdict for contrast in summary.contrasts}
    assert verdicts == {"pg": "lower", "grpo": "inconclusive", "cppo": "inconclusive"}
    assert {result.label: result.collapses for result in summary.results}["pg"] == 5


def test_no_winner_is_named_among_methods_that_tie(tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, seeds=range(5))
    panel = summary.panels[0]
    assert panel.winner is None
    text = " ".join(verdict_text.verdict(panel))
    assert "is not resolved" in text
    assert "its lead over every other method is resolved" not in text


def test_a_method_far_ahead_of_every_other_is_named(tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, algos=("pg", "dppo_tv"), seeds=range(5))
    panel = summary.panels[0]
    assert panel.winner is not None
    assert panel.winner.label == "dppo_tv"
    assert "its lead over every other method is resolved" in verdict_text.verdict(panel)[0]


def test_a_leading_baseline_is_judged_by_the_comparisons_made_with_it(tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, algos=("pg", "dppo_tv", "grpo"), seeds=range(3), baseline="grpo")
    panel = summary.panels[0]
    assert panel.leader is not None
    assert panel.leader.label == panel.baseline == "grpo"
    assert set(panel.not_resolved_from) == {c.treatment for c in panel.contrasts if not c.resolved}


def test_an_interval_beside_zero_that_holm_does_not_pass_says_so() -> None:
    difference = Estimate(mean=0.05, low=0.01, high=0.09, n=3, sd=0.02)
    contrast = Contrast("a", "b", (Pair(0.05, 0.0, frozenset()),) * 3, difference, 1.0, 0.09, 3)
    assert contrast.verdict == "inconclusive after Holm"
    assert not contrast.resolved


def test_a_single_seed_resolves_nothing(tmp_path: Path) -> None:
    study, summary = study_of(tmp_path, seeds=(0,))
    assert all(contrast.verdict == "inconclusive (one pair)" for contrast in summary.contrasts)
    assert any("a single seed" in caveat for caveat in method_notes.caveats(study, summary))


def test_a_method_with_one_seed_among_others_is_said_to_have_no_interval(tmp_path: Path) -> None:
    study, summary = study_of(tmp_path, only_seed={"grpo": 1})
    lone = next(result for result in summary.results if result.label == "grpo")
    assert lone.final is not None
    assert (lone.n, lone.final.has_interval) == (1, False)
    assert any(caveat.startswith("grpo: a single seed") for caveat in method_notes.caveats(study, summary))


def test_failed_and_unfinished_runs_are_named_in_words(tmp_path: Path) -> None:
    study, summary = study_of(
        tmp_path,
        faults={
            ("pg", 0): Fault("FAILED", "loss is nan", 6, True),
            ("grpo", 1): Fault("FAILED", "disk is full", 6),
            ("cppo", 2): Fault("INTERRUPTED", None, 6),
        },
    )
    text = " ".join(method_notes.caveats(study, summary))
    assert "1 run diverged (pg seed=0) and counts" in text
    assert "1 run failed without diverging (grpo seed=1); not counted" in text
    assert "1 run interrupted (cppo seed=2); shown, not counted" in text


def test_the_window_ends_where_the_shortest_finished_run_ends(tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, faults={("pg", 0): Fault("FAILED", "loss is nan", 5, True)})
    assert summary.panels[0].scoring.window == 12


def test_a_run_that_died_early_changes_the_meaning_of_final_for_no_other(tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, faults={("pg", 0): Fault("FAILED", "loss is nan", 3, True)})
    assert summary.panels[0].scoring.final_evaluations == 3


def test_panels_of_different_length_are_scored_separately(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0,), learning_rates=(1e-4, 2e-4))
    for folder, algo in ((folders[1], "grpo"), (folders[3], "cppo")):
        write_run(folder, run_id=folder.name.split("-")[1], algo=algo, seed=0, rate=2e-4, steps=4)
    summary = summarise(load_study(tmp_path, "quickstart"))
    assert [panel.scoring.window for panel in summary.panels] == [12, 4]
    assert [panel.scoring.final_evaluations for panel in summary.panels] == [3, 1]
    assert final_in_words(summary) == (
        "the mean of the last 3 evaluations for lr=1e-4 and the last evaluation for lr=2e-4"
    )
    assert window_in_words(summary) == "steps 0 to 12 for lr=1e-4 and steps 0 to 4 for lr=2e-4"


def test_a_mid_sweep_report_has_no_final_and_says_so(tmp_path: Path) -> None:
    faults = {("grpo", seed): Fault("RUNNING", None, 5) for seed in (0, 1)}
    _, summary = study_of(tmp_path, algos=("grpo",), seeds=(0, 1), faults=faults)
    assert summary.results[0].final is None
    assert "No run has finished yet" in verdict_text.verdict(summary.panels[0])[0]


def test_the_baseline_is_of_the_same_panel() -> None:
    groups = tuple(
        Group(method, panel, f"{method}, {panel}", (("algo", method), ("lr", panel)))
        for panel in ("lr=1", "lr=2")
        for method in ("cppo", "dppo_tv")
    )
    found = find_baseline(groups[2:], "dppo_tv")
    assert found is not None
    assert found.label == "dppo_tv, lr=2"


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (("pg", "grpo", "dppo_tv"), "dppo_tv"),
        (("dppo_tv", "dppo_topk_tv"), "dppo_topk_tv"),
        (("mine", "yours"), "mine"),
    ],
)
def test_without_a_wish_a_divergence_threshold_is_the_baseline(
    methods: tuple[str, ...], expected: str
) -> None:
    groups = tuple(Group(name, "", name, (("algo", name),)) for name in methods)
    found = find_baseline(groups, None)
    assert found is not None
    assert found.method == expected


def test_evaluation_error_enters_the_spread(tmp_path: Path) -> None:
    study, summary = study_of(tmp_path, algos=("grpo",), seeds=(0,))
    run = summary.results[0].runs[0]
    stderr = study.metrics["eval/heldout/stderr"].dropna().to_numpy()[-3:]
    assert run.final_error == pytest.approx(np.sqrt((stderr**2).sum()) / 3)


@pytest.mark.parametrize(
    ("seeds", "told"),
    [((1, 2), "(n = 2: no interval)"), ((1, 2, 3), "(n = 3, too few seeds for a useful interval)")],
)
def test_the_interval_is_left_out_of_the_first_sentence_when_it_says_nothing(
    tmp_path: Path, seeds: tuple[int, ...], told: str
) -> None:
    _, summary = study_of(tmp_path, algos=("grpo", "dppo_tv"), seeds=seeds)
    leader = summary.panels[0].leader
    assert leader is not None
    assert leader.final is not None
    wide = replace(leader, final=replace(leader.final, low=0.1, high=0.9))
    assert told in verdict_text.verdict(replace(summary.panels[0], leader=wide))[0]


def with_final(panel: PanelSummary, finals: dict[str, float]) -> PanelSummary:
    """The same panel, its methods ending at `finals`, none of their leads resolved."""
    results = tuple(
        replace(result, final=replace(result.final, mean=finals[result.label]))
        for result in panel.results
        if result.final is not None
    )
    leader = max(results, key=lambda result: finals[result.label])
    others = tuple(label for label in finals if label != leader.label)
    return replace(panel, results=results, leader=leader, not_resolved_from=others)


def test_a_tie_at_the_shown_precision_is_called_level(tmp_path: Path) -> None:
    _, summary = study_of(tmp_path, algos=("pg", "grpo", "cppo"), seeds=(0, 1))
    tie = with_final(summary.panels[0], {"pg": 0.1, "grpo": 0.6001, "cppo": 0.6})
    assert verdict_text.verdict(tie)[0] == (
        "grpo and cppo ended level at 60.0%, the highest; a lead over pg is not resolved."
    )
    all_alike = with_final(summary.panels[0], {"pg": 0.6, "grpo": 0.6001, "cppo": 0.6})
    assert verdict_text.verdict(all_alike)[0] == "pg, grpo and cppo ended level at 60.0%."
    apart = with_final(summary.panels[0], {"pg": 0.1, "grpo": 0.602, "cppo": 0.6})
    assert verdict_text.verdict(apart)[0].startswith("grpo ended highest, at 60.2%")


def test_methods_that_train_on_other_tokens_are_named_among_the_caveats(tmp_path: Path) -> None:
    study, summary = study_of(tmp_path, algos=("ppo", "grpo", "cppo"), seeds=(0, 1))
    assert not any("trained tokens" in caveat for caveat in method_notes.caveats(study, summary))
    kinds = study.runs["method"].map({"ppo": "none", "grpo": "none", "cppo": "skip"})
    runs = study.runs.assign(**{"config.algo.dynamic_sampling.kind": kinds})
    (caveat,) = [c for c in method_notes.caveats(replace(study, runs=runs), summary) if "trained tokens" in c]
    assert "differ in algo.dynamic_sampling.kind (none: ppo and grpo; skip: cppo): averages" in caveat
    assert "algo.dynamic_sampling.kind=skip algo.aggregation.kind=token_mean" in caveat


def test_panels_that_differ_in_tokens_while_their_methods_do_not_bring_no_caveat(tmp_path: Path) -> None:
    study, summary = study_of(tmp_path, algos=("grpo", "cppo"), seeds=(0, 1), learning_rates=(2e-4, 4e-4))
    kinds = study.runs["panel"].map({"lr=2e-4": "none", "lr=4e-4": "skip"})
    assert kinds.notna().all()
    runs = study.runs.assign(**{"config.algo.dynamic_sampling.kind": kinds})
    assert not any("trained tokens" in c for c in method_notes.caveats(replace(study, runs=runs), summary))

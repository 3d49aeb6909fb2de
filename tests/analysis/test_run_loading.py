"""Run folders and sweeps read into frames: groups, pairs, failed and unfinished runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_folders import START, Fault, write_run, write_sweep

from cppo_lab.analysis.formatting import tidy
from cppo_lab.analysis.grouping import distinct_panels, group_runs, is_seed_axis
from cppo_lab.analysis.load.axes import Source, study_axes
from cppo_lab.analysis.load.run_record import RunRecord, read_json_lines
from cppo_lab.analysis.load.sources import NothingToReport, known_sweeps, load_study
from cppo_lab.analysis.page.report import write_report
from cppo_lab.analysis.summary import summarise


def test_every_planned_run_is_there_with_its_status(tmp_path: Path) -> None:
    write_sweep(
        tmp_path,
        faults={("pg", 1): Fault("FAILED", "disk is full", 4), ("grpo", 0): Fault("RUNNING", None, 6)},
        absent=[("cppo", 2)],
    )
    runs = load_study(tmp_path, "quickstart").runs
    assert len(runs) == 12
    assert runs["status"].value_counts().to_dict() == {
        "FINISHED": 9,
        "FAILED": 1,
        "INTERRUPTED": 1,
        "PENDING": 1,
    }


def test_a_diverged_run_counts_and_a_run_that_failed_otherwise_does_not(tmp_path: Path) -> None:
    write_sweep(
        tmp_path,
        faults={
            ("pg", 0): Fault("FAILED", "loss is not finite (nan) at step 6", 6, True),
            ("pg", 1): Fault("FAILED", "disk is full", 6),
        },
    )
    runs = load_study(tmp_path, "quickstart").runs
    pg = runs[runs["method"] == "pg"].sort_values("seeds")
    assert pg["counted"].tolist() == [True, False, True]
    assert pg["diverged"].tolist() == [True, False, False]


@pytest.mark.parametrize(
    "reason",
    [
        "KeyError: 'divergence_mean'",
        "UserError: algo.divergence.kind=topk: needs a larger K",
        "RuntimeError: probabilities contain inf or nan",
        "its process died: diverged at step 3, update 7: loss nan, gradient norm nan",
        "diverged at step 3, update 7: loss nan, gradient norm nan",
    ],
)
def test_a_crash_is_no_divergence_whatever_its_message_says(tmp_path: Path, reason: str) -> None:
    write_sweep(tmp_path, algos=("pg",), faults={("pg", 0): Fault("FAILED", reason, 6)})
    runs = load_study(tmp_path, "quickstart").runs
    assert not runs["diverged"].any()
    assert runs["counted"].sum() == 2


@pytest.mark.parametrize(
    ("reason", "diverged"),
    [
        ("diverged at step 3, update 7: loss nan, gradient norm nan", True),
        ("diverged at step 12, update 700: loss -inf, gradient norm 1.5e+38", True),
        ("KeyError: 'divergence_mean'", False),
        ("UserError: diverged at step 3, update 7: loss nan, gradient norm nan", False),
        ("diverged at step 3", False),
        (None, False),
    ],
)
def test_a_run_that_does_not_record_whether_it_diverged_is_known_by_the_trainer_s_own_words(
    tmp_path: Path, reason: str | None, diverged: bool
) -> None:
    write_sweep(tmp_path, algos=("pg",), faults={("pg", 0): Fault("FAILED", reason, 6, diverged=None)})
    runs = load_study(tmp_path, "quickstart").runs
    assert runs["diverged"].sum() == runs["counted"].sum() - 2 == diverged


def set_start(folder: Path, accuracy: float | None) -> None:
    """Let the run's evaluation at step 0 be `accuracy`; None takes it out of metrics.jsonl and run.json."""
    rows, _ = read_json_lines(folder / "metrics.jsonl")
    rows[0]["eval/heldout/accuracy"] = accuracy
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if accuracy is None:
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        info["starting_policy"]["accuracy"] = None
        (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")


def pairs_of(output: Path) -> int:
    (contrast,) = summarise(load_study(output, "quickstart")).contrasts
    return contrast.n


BOTH = ("dppo_tv", "cppo")


def test_runs_from_different_policies_of_one_recipe_are_no_pair(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=BOTH)
    assert pairs_of(tmp_path) == 3
    set_start(folders[0], math.nextafter(START, 1))
    assert pairs_of(tmp_path) == 2
    set_start(folders[3], math.nextafter(START, 1))
    assert pairs_of(tmp_path) == 3, "both are from the other policy"


def test_runs_without_an_evaluation_at_step_0_pair_with_each_other_alone(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=BOTH)
    for folder in (folders[0], folders[3], folders[4]):
        set_start(folder, None)
    assert pairs_of(tmp_path) == 2


def test_a_pretrained_policy_is_the_same_whatever_two_devices_make_of_its_accuracy(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=BOTH, settings={"model.kind": "pretrained"})
    set_start(folders[0], START + 0.01)
    assert pairs_of(tmp_path) == 3


@pytest.mark.parametrize("key", ["trainer.temperature", "engine.kind"])
def test_methods_that_are_evaluated_in_different_ways_pair_by_the_recipe_alone(
    tmp_path: Path, key: str
) -> None:
    folders = write_sweep(tmp_path, algos=BOTH, absent=[("cppo", 2)])
    for folder in folders[:3]:
        set_start(folder, START + 0.01)
        group, name = key.split(".")
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        config[group][name] = "another"
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (contrast,) = summarise(load_study(tmp_path, "quickstart", force=True)).contrasts
    assert contrast.n == 2


def test_a_half_written_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, algos=("grpo",), seeds=(0,))[0]
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    study = load_study(tmp_path, "quickstart")
    assert study.metrics["step"].max() == 11
    assert any("1 unreadable line" in note for note in study.notes)


def test_a_line_that_is_not_an_object_counts_as_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n[1, 2]\n\n"text"\n', encoding="utf-8")
    assert read_json_lines(path) == ([{"step": 1}], 2)


def test_a_step_written_twice_by_a_resumed_run_keeps_the_later(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, algos=("grpo",), seeds=(0,))[0]
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"step": 12, "eval/heldout/accuracy": 0.123}) + "\n")
    metrics = load_study(tmp_path, "quickstart").metrics
    assert metrics.loc[metrics["step"] == 12, "eval/heldout/accuracy"].tolist() == [0.123]


def test_groups_follow_the_order_of_the_sweeps_axes(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo", "pg", "cppo"), learning_rates=(4e-4, 2e-4), seeds=(0, 1))
    grouping = load_study(tmp_path, "quickstart").grouping
    assert grouping.panels == ("lr=4e-4", "lr=2e-4")
    assert grouping.methods == ("grpo", "pg", "cppo")
    assert [group.label for group in grouping.groups][:2] == ["grpo, lr=4e-4", "pg, lr=4e-4"]


def test_a_sweep_of_one_algorithm_names_its_methods_by_the_other_axis() -> None:
    axes = {"algo": ["cppo"], "algo.trust_region.weights.kind": ["linear", "uniform"], "seed": ["0", "1"]}
    runs = {
        f"{kind}{seed}": {"algo": "cppo", "algo.trust_region.weights.kind": kind, "seed": seed}
        for kind in ("linear", "uniform")
        for seed in ("0", "1")
    }
    grouping = group_runs(axes, runs, dict.fromkeys(runs, "cppo"))
    assert grouping.methods == ("weights=linear", "weights=uniform")
    assert grouping.panels == ("",)
    assert grouping.membership["linear0"].seeds == "seed=0"


def test_settings_of_one_method_make_methods_and_no_panels() -> None:
    lr, delta = "trainer.lr", "algo.trust_region.delta"
    found = [
        ("grpo", "none", "1e-4"),
        ("cppo", "0.1", "1e-4"),
        ("cppo", "0.2", "1e-4"),
        ("cppo", "0.1", "2e-4"),
    ]
    runs = {str(n): {"algo": algo, delta: d, lr: rate} for n, (algo, d, rate) in enumerate(found)}
    axes = {"algo": ["grpo", "cppo"], delta: ["none", "0.1", "0.2"], lr: ["1e-4", "2e-4"]}
    methods = {run: values["algo"] for run, values in runs.items()}
    grouping = group_runs(axes, runs, methods, {"cppo": [delta]})
    assert [grouping.membership[run].label for run in runs] == [
        "grpo, lr=1e-4",
        "cppo, delta=0.1, lr=1e-4",
        "cppo, delta=0.2, lr=1e-4",
        "cppo, delta=0.1, lr=2e-4",
    ]
    assert grouping.panels == ("lr=1e-4", "lr=2e-4")
    assert grouping.methods == ("grpo", "cppo, delta=0.1", "cppo, delta=0.2")


def test_another_methods_own_axis_never_joins_different_runs() -> None:
    lr = "trainer.lr"
    runs = {
        "a": {"algo": "grpo", lr: "1e-4"},
        "b": {"algo": "grpo", lr: "2e-4"},
        "c": {"algo": "cppo", lr: "4e-4"},
    }
    axes = {"algo": ["grpo", "cppo"], lr: ["1e-4", "2e-4", "4e-4"]}
    grouping = group_runs(axes, runs, {run: values["algo"] for run, values in runs.items()}, {"cppo": [lr]})
    assert grouping.methods == ("grpo, lr=1e-4", "grpo, lr=2e-4", "cppo, lr=4e-4")


def test_panels_are_told_apart_by_what_they_do_not_share() -> None:
    panels = ["regime=mild, epochs=4", "regime=mismatch, epochs=4"]
    assert distinct_panels(panels) == dict(zip(panels, ["regime=mild", "regime=mismatch"], strict=True))
    assert distinct_panels(panels[:1] * 2) == {panels[0]: panels[0]}


@pytest.mark.parametrize("name", ["seed", "warmup.seed", "seeds.prompts", "data_seed"])
def test_axes_that_only_draw_other_numbers_are_seeds(name: str) -> None:
    assert is_seed_axis(name)


@pytest.mark.parametrize("name", ["algo", "trainer.lr", "task.seedling"])
def test_other_axes_are_not_seeds(name: str) -> None:
    assert not is_seed_axis(name)


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0.0002", "2e-4"), ("2.5e-05", "2.5e-5"), ("0.15", "0.15"), ("cppo", "cppo"), ("0", "0")],
)
def test_small_numbers_are_written_short(value: str, shown: str) -> None:
    assert tidy(value) == shown


def axes_of(configs: list[dict[str, Any]]) -> list[str]:
    """The axes of runs picked by hand that have these flat configurations."""
    records = [
        RunRecord(f"run{number}", Path(f"run{number}"), {}, config, {}, [], [], [], ())
        for number, config in enumerate(configs)
    ]
    return list(study_axes([Source("runs", False, tuple(records))]).order)


def test_axes_of_chosen_runs_are_the_keys_no_named_choice_determines() -> None:
    configs = [
        {"algo.name": name, "algo.delta": delta, "trainer.lr": rate, "seed": seed, "tracking.uri": str(seed)}
        for name, delta in (("pg", None), ("cppo", 0.15))
        for rate in (1e-4, 2e-4)
        for seed in (0, 1)
    ]
    assert axes_of(configs) == ["algo.name", "trainer.lr", "seed"]


def test_what_follows_from_the_task_is_no_axis_of_chosen_runs() -> None:
    configs = [
        {"task.kind": kind, "task.path": path, "trainer.steps": steps, "seed": seed, "seeds.prompts": seed}
        for kind, path, steps in (("chain", None, 12), ("gsm8k", "train.jsonl", 3))
        for seed in (0, 1)
    ]
    assert axes_of(configs) == ["task.kind", "seed"]


def test_long_axis_values_still_make_file_names(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=("pg", "grpo"), seeds=(0,), learning_rates=(2e-4, 4e-4))
    for folder in folders:
        path = folder / "config.yaml"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("lr: 0.0004", f"lr: {'long' * 90}"), encoding="utf-8")
    files = write_report(tmp_path, run_folders=folders, formats=("png",))
    assert all(len(path.name) < 80 for path in files.figures)
    assert len({path.name for path in files.figures}) == len(files.figures)


def test_chosen_run_folders_are_grouped_like_a_sweep(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=("pg", "grpo"), seeds=(0, 1))
    study = load_study(tmp_path, run_folders=folders)
    assert study.grouping.methods == ("pg", "grpo")
    assert summarise(study).panels[0].contrasts[0].n == 2


def test_pairs_share_seeds_and_starting_policy(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=("grpo", "dppo_tv"), seeds=(0, 1))
    path = folders[0] / "run.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["starting_policy"]["recipe"] = "other"
    path.write_text(json.dumps(info), encoding="utf-8")
    contrast = summarise(load_study(tmp_path, "quickstart", force=True)).contrasts[0]
    assert contrast.n == 1
    assert contrast.verdict == "inconclusive (one pair)"


def test_an_unknown_sweep_is_refused_with_the_known_ones_and_a_near_miss(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo",), seeds=(0,))
    with pytest.raises(
        NothingToReport, match=r"sweep = quickstrat: .*quickstart\. Did you mean 'quickstart'\?"
    ):
        load_study(tmp_path, "quickstrat")


def test_a_sweep_without_a_finished_step_is_refused(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo",), seeds=(0,), faults={("grpo", 0): Fault("RUNNING", None, 0)})
    with pytest.raises(NothingToReport, match=r"none of its 1 runs has finished a step yet \(INTERRUPTED\)"):
        load_study(tmp_path, "quickstart")


def test_an_empty_output_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NothingToReport, match="holds no sweep and no run"):
        load_study(tmp_path)


def test_without_a_sweep_every_run_is_read_one_without_run_json_too(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=("grpo", "pg"), seeds=(0,))
    (tmp_path / "sweeps" / "quickstart" / "sweep.json").unlink()
    (folders[1] / "run.json").unlink()
    study = load_study(tmp_path)
    assert study.name == "runs"
    assert sorted(study.runs["status"]) == ["FINISHED", "UNKNOWN"]


def test_a_missing_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NothingToReport, match="no such folder"):
        load_study(tmp_path, run_folders=[tmp_path / "runs" / "absent"])


def test_without_a_name_the_newest_sweep_is_read(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="older", algos=("grpo",), seeds=(0,))
    write_sweep(tmp_path, name="newer", algos=("pg",), seeds=(0,))
    path = tmp_path / "sweeps" / "newer" / "sweep.json"
    sweep = json.loads(path.read_text(encoding="utf-8")) | {"created_at": "2026-10-01T00:00:00+00:00"}
    path.write_text(json.dumps(sweep), encoding="utf-8")
    assert known_sweeps(tmp_path) == ["newer", "older"]
    assert load_study(tmp_path).name == "newer"


def test_a_run_without_configuration_and_without_timings_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "cppo-abc"
    write_run(folder, run_id="abc", algo="cppo", seed=0)
    for name in ("config.yaml", "timings.jsonl", "profiles.jsonl"):
        (folder / name).unlink()
    study = load_study(tmp_path, run_folders=[folder])
    assert study.runs.loc["abc", "method"] == "cppo"
    assert study.timings.empty

"""What training had spent by each step, from what runs record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_drawing import data_of
from run_folders import Fault, write_sweep

from cppo_lab.analysis.figures.data import draw_figure
from cppo_lab.analysis.figures.registry import load_figures
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.exhibits import exhibits
from cppo_lab.analysis.page.report import write_study
from cppo_lab.analysis.run_table import KL
from cppo_lab.analysis.spent import AXES, with_spent
from cppo_lab.analysis.summary import summarise
from cppo_lab.errors import UserError

PARAMETERS = 101_440


def study_of(tmp_path: Path, **options: object) -> Study:
    write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0, 1), **options)
    return load_study(tmp_path, "quickstart")


def spent(study: Study, axis: str) -> dict[str, pd.Series]:
    """What each run had spent, by step."""
    metrics = with_spent(study, AXES[axis]).metrics
    return {
        str(run): rows.set_index("step")[AXES[axis].metric].astype(float)
        for run, rows in metrics.groupby("run_id")
    }


def test_every_axis_starts_at_nothing_and_never_falls(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    for axis in AXES:
        for run in spent(study, axis).values():
            assert run[0] == 0.0
            assert (run.diff().dropna() > 0).all(), axis


def test_updates_seconds_and_kl_are_summed_over_steps_without_evaluations(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    run, recorded = next(iter(spent(study, "kl").items()))
    steps = study.metrics[study.metrics["run_id"] == run].set_index("step")[KL]
    assert recorded[12] == pytest.approx(steps.sum())
    assert spent(study, "updates")[run][5] == 5 * 64
    assert spent(study, "time")[run][5] == pytest.approx(5 * (0.5 + 0.8))


def test_tokens_are_those_of_all_graded_responses(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    for run, tokens in spent(study, "tokens").items():
        rows = study.metrics[study.metrics["run_id"] == run].set_index("step")
        assert tokens[3] == pytest.approx(256 * rows.loc[1:3, "rollout/length_mean"].sum())


def test_flops_of_older_runs_end_at_their_recorded_total(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    tokens = spent(study, "tokens")
    for run, flops in spent(study, "flops").items():
        assert flops[12] == pytest.approx(PARAMETERS * (4 * tokens[run][12] + 6 * 38_000 * 12))


def test_flops_follow_the_tokens_that_a_run_recorded_at_each_step(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0, 1))
    trained = np.cumsum(np.arange(1, 13) * 1000.0)
    for folder in folders:
        rows = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
        text = "".join(json.dumps({**row, "tokens_trained": trained[row["step"] - 1]}) + "\n" for row in rows)
        (folder / "timings.jsonl").write_text(text, encoding="utf-8")
        info = json.loads((folder / "run.json").read_text())
        info["model"]["active_parameters"] = 1000
        (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    study = load_study(tmp_path, "quickstart")
    tokens = spent(study, "tokens")
    for run, flops in spent(study, "flops").items():
        assert flops[4] == pytest.approx(1000 * (4 * tokens[run][4] + 6 * trained[3]))


def test_recomputed_activations_cost_another_forward_pass(tmp_path: Path) -> None:
    plain = study_of(tmp_path / "a")
    again = study_of(tmp_path / "b", settings={"model.gradient_checkpointing": True})
    difference = (
        next(iter(spent(again, "flops").values()))[12] - next(iter(spent(plain, "flops").values()))[12]
    )
    assert difference == pytest.approx(PARAMETERS * 2 * 38_000 * 12, rel=0.02)


def test_a_step_without_updates_moves_nothing_and_one_without_a_record_ends_the_line(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    at = study.metrics["step"] == 3
    idle = study.metrics.assign(
        **{KL: study.metrics[KL].mask(at), "train/updates": study.metrics["train/updates"].mask(at, 0)}
    )
    lost = study.metrics.assign(**{KL: study.metrics[KL].mask(at)})
    for metrics, is_known in ((idle, True), (lost, False)):
        run = next(iter(spent(Study(**{**vars(study), "metrics": metrics}), "kl").values()))
        assert np.isfinite(run[12]) == is_known
        assert np.isfinite(run[2])


@pytest.mark.parametrize("axis", list(AXES))
def test_accuracy_is_drawn_over_every_axis_diverged_runs_included(axis: str, tmp_path: Path) -> None:
    faults = {("grpo", 1): Fault("FAILED", "loss is not finite", 7, True)}
    data = data_of(study_of(tmp_path, faults=faults)).over(AXES[axis])
    figure = draw_figure(load_figures()["accuracy"], data).figure
    (axes,) = figure.axes
    assert axes.get_xlabel() == AXES[axis].label
    thick = [line for line in axes.lines if line.get_linewidth() == 1.9]
    assert len(thick) == 2
    for line in thick:
        x = np.asarray(line.get_xdata(), dtype=float)
        assert len(x) == 7
        assert (np.diff(x[~np.isnan(x)]) > 0).all()
        # Only the logarithmic axis has no place for the start.
        assert np.isnan(x[0]) == AXES[axis].is_log
    (cross,) = (line for line in axes.lines if line.get_marker() == "x")
    assert np.isfinite(np.asarray(cross.get_xdata(), dtype=float)).all()


def test_axes_that_no_run_recorded_are_no_choice_and_asking_for_one_is_refused(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0, 1))
    for folder in folders:
        (folder / "timings.jsonl").unlink()
    study = load_study(tmp_path, "quickstart")
    summary = summarise(study)
    (accuracy,) = (each for each in exhibits(study, summary, with_views=True) if each.name == "accuracy")
    assert [view.axis.key for view in accuracy.views] == ["steps", "updates", "tokens", "flops", "kl"]
    with pytest.raises(UserError, match="--axis time: no run recorded timings"):
        exhibits(study, summary, "time")
    with pytest.raises(UserError, match="--axis=tokenz: "):
        exhibits(study, summary, "tokenz")


def test_files_are_drawn_over_the_axis_asked_for_and_say_so(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    files = write_study(study, tmp_path / "report", ("md",), axis="flops")
    assert files.markdown is not None
    text = files.markdown.read_text(encoding="utf-8")
    assert "6N per trained response token" in text
    assert [path.name for path in files.figures].count("accuracy.png") == 1
    assert not [path for path in files.figures if path.name.startswith("accuracy-flops")]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (
            ["--axis", "tokenz"],
            "--axis=tokenz: unknown; allowed are flops, kl, steps, time, tokens, updates.",
        ),
        (["--axis", "flops", "--terminal"], "--axis flops: has no effect with --terminal or --aa"),
    ],
)
def test_an_axis_that_cannot_be_drawn_over_is_refused(
    extra: list[str], said: str, tmp_path: Path, invoke: Callable[..., tuple[int, str, str]]
) -> None:
    write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0, 1))
    code, _, err = invoke("report", "quickstart", "-o", str(tmp_path), *extra)
    assert code == 2
    assert said in " ".join(err.split())
    assert not (tmp_path / "reports").exists()

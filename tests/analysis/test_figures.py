"""What the figures draw: no run left out, no point lost, no axis stretched by one value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_drawing import drawn
from matplotlib.axes import Axes
from run_folders import write_sweep

from cppo_lab.analysis.figures.gallery.accuracy_against_kl import kl_spent
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import KL

Row = dict[str, Any]


def study_with(
    tmp_path: Path, change: Callable[[int, Row], Row], algo: str = "cppo", **options: Any
) -> Study:
    """A sweep whose metric rows from step 1 on went through `change`(seed, row) for the runs of `algo`."""
    write_sweep(tmp_path, **options)
    for folder in (tmp_path / "runs").glob(f"{algo}-*"):
        seed = json.loads((folder / "run.json").read_text(encoding="utf-8"))["seed"]
        rows = [
            json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        changed = [change(seed, row) if row["step"] else row for row in rows]
        text = "".join(json.dumps(row) + "\n" for row in changed)
        (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return load_study(tmp_path, "quickstart")


def idle(row: Row) -> Row:
    return row | {KL: None, "train/updates": 0}


def test_a_step_without_updates_spends_no_kl_and_keeps_its_run(tmp_path: Path) -> None:
    def only_step_one(_: int, row: Row) -> Row:
        return row | {KL: 0.25} if row["step"] == 1 else idle(row)

    study = study_with(tmp_path, only_step_one, algos=("cppo",), seeds=(0, 1), steps=2)
    spent = kl_spent(study, study.grouping.groups[0])
    assert spent is not None
    assert spent.values.tolist() == [[0.25, 0.25], [0.25, 0.25]]
    figure = drawn("accuracy_against_kl", study)
    assert [0.25] in [list(line.get_xdata()) for line in figure.axes[0].lines]


def test_a_kl_that_is_not_known_is_not_taken_for_zero(tmp_path: Path) -> None:
    def unknown(_: int, row: Row) -> Row:
        return row | {KL: None if row["step"] == 2 else 0.25, "train/updates": 4}

    study = study_with(tmp_path, unknown, algos=("cppo",), seeds=(0,), steps=3)
    spent = kl_spent(study, study.grouping.groups[0])
    assert spent is not None
    assert dict(zip(spent.steps, spent.values[0], strict=True)) == {1.0: 0.25, 3.0: 0.5}


@pytest.mark.parametrize("rates", [(4e-4,), (2e-4, 4e-4)])
def test_the_label_below_accuracy_against_kl_fits_its_figure(
    tmp_path: Path, rates: tuple[float, ...]
) -> None:
    write_sweep(tmp_path, seeds=(0, 1), learning_rates=rates)
    figure = drawn("accuracy_against_kl", load_study(tmp_path, "quickstart"))
    figure.draw_without_rendering()
    boxes = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert len(boxes) == len(rates)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(box.width <= axes.bbox.width for box, axes in zip(boxes, figure.axes, strict=True))


def heights(axes: Axes) -> list[list[float]]:
    return [np.asarray(line.get_ydata(), dtype=np.float64).tolist() for line in axes.lines]


def kl_axes(study: Study) -> Axes:
    return next(
        axes
        for axes in drawn("stability", study, "").axes
        if axes.get_title(loc="left").startswith("KL from rollout")
    )


def test_a_series_of_one_point_is_drawn_with_a_marker(tmp_path: Path) -> None:
    def only_step_one(_: int, row: Row) -> Row:
        return row | {KL: 0.25} if row["step"] == 1 else idle(row)

    axes = kl_axes(study_with(tmp_path, only_step_one, algos=("cppo",), seeds=(0,), steps=2))
    (line,) = axes.lines
    assert heights(axes) == [[0.25]]
    assert line.get_marker() not in ("None", None)


def test_seeds_that_have_their_points_at_different_steps_have_a_centre_line(tmp_path: Path) -> None:
    def one_step_each(seed: int, row: Row) -> Row:
        return row | {KL: 0.1 * row["step"]} if row["step"] == seed + 1 else idle(row)

    axes = kl_axes(study_with(tmp_path, one_step_each, algos=("cppo",), seeds=(0, 1), steps=2))
    assert heights(axes) == [[0.1], [0.2], [0.1, 0.2]]
    assert [line.get_marker() for line in axes.lines[:2]] == [".", "."]


def test_a_step_without_signal_does_not_stretch_the_logarithmic_axis(tmp_path: Path) -> None:
    def no_signal_first(_: int, row: Row) -> Row:
        return row | {KL: 5e-14 if row["step"] == 1 else 0.02}

    study = study_with(tmp_path, no_signal_first, algos=("cppo",), seeds=(0, 1))
    assert kl_axes(study).get_ylim()[0] == pytest.approx(2e-5)
    spent = drawn("accuracy_against_kl", study)
    assert spent.axes[0].get_xlim()[0] > 1e-6


def test_a_logarithmic_axis_without_outliers_shows_every_value(tmp_path: Path) -> None:
    def falling(_: int, row: Row) -> Row:
        return row | {KL: 0.1 / row["step"]}

    axes = kl_axes(study_with(tmp_path, falling, algos=("cppo",), seeds=(0, 1)))
    assert axes.get_ylim()[0] < 0.1 / 12

"""The figure of the mismatch tells engines and dtypes apart, and invents nothing that was not recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from figure_drawing import data_of, drawn
from run_folders import write_sweep

from cppo_lab.analysis.figures import CannotDraw
from cppo_lab.analysis.figures.gallery.mismatch import MEAN, P99, draw, engines_of
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study

SEEDS = (0, 1)


def study_of_engines(tmp_path: Path) -> Study:
    """Two seeds each of the native engine, and of vLLM in bfloat16 with a hundred times the mismatch."""
    write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=SEEDS, steps=8)
    for folder in (tmp_path / "runs").glob("cppo-*"):
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        config["engine"] = {"kind": "vllm", "weights": "bfloat16"}
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            row |= {key: 100 * row[key] for key in (MEAN, P99) if key in row}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_study(tmp_path, "quickstart")


def test_engines_are_told_apart_by_kind_and_weights(tmp_path: Path) -> None:
    study = study_of_engines(tmp_path)
    assert engines_of(study).value_counts().to_dict() == {"native, same": 2, "vllm, bfloat16": 2}
    figure = drawn("mismatch", study)
    assert [axes.get_title("left") for axes in figure.axes] == [
        "Mean",
        "99th percentile",
        "Mean, by position",
    ]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["native, same", "vllm, bfloat16"]
    mean = figure.axes[0]
    assert mean.get_yscale() == "log"
    # One thin line a run, one thick line an engine.
    assert len(mean.lines) == 2 * (len(SEEDS) + 1)
    levels = [float(line.get_ydata()[0]) for line in mean.lines if line.get_linewidth() > 1]  # type: ignore[index]
    assert levels == pytest.approx([1e-6, 1e-4])
    assert "native, same: 2 runs; vllm, bfloat16: 2 runs" in draw(data_of(study)).note


def test_without_a_recorded_mismatch_there_is_no_figure(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("cppo",), seeds=(0,), steps=2, missing_metrics={"cppo": (MEAN, P99)})
    study = load_study(tmp_path, "quickstart")
    with pytest.raises(CannotDraw, match="no run recorded a mismatch above zero"):
        drawn("mismatch", study)

"""What the mask removes, in the report: read from run folders, summed over seeds, drawn and tabled."""

from __future__ import annotations

from pathlib import Path

import pytest
from figure_drawing import drawn
from run_folders import write_sweep

from cppo_lab.analysis.figures import CannotDraw
from cppo_lab.analysis.load.masked_tokens import FILE, masked_tokens_of, read_masked_tokens
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.method_notes import caveats
from cppo_lab.analysis.page.mask_tables import masked_tokens_table
from cppo_lab.analysis.summary import summarise


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    output = tmp_path_factory.mktemp("outputs")
    return output, write_sweep(output, algos=("pg", "dppo_tv", "cppo"), seeds=(0, 1))


def test_counts_of_seeds_are_added_cell_by_cell(runs: tuple[Path, list[Path]]) -> None:
    folders = [folder for folder in runs[1] if folder.name.startswith("cppo-")]
    one, both = read_masked_tokens(folders[0]), masked_tokens_of(folders)
    assert one is not None
    assert both is not None
    assert both.total.tokens == 2 * one.total.tokens
    assert both.cells["token"]["7"].masked["budget"] == 2 * one.cells["token"]["7"].masked["budget"] > 0
    assert [name for name, _ in both.by("class")] == ["digit", "operator", "end"]
    assert [name for name, _ in both.by("entropy")] == ["below 0.01", "0.3 to 1", "2 or more"]
    assert [name for name, _ in both.by("sign")] == ["negative", "positive"]


def test_the_table_has_shares_of_the_masked_tokens_of_each_method(runs: tuple[Path, list[Path]]) -> None:
    table = masked_tokens_table(load_study(runs[0], "quickstart"))
    assert table is not None
    frame = table.frame().set_index("method")
    assert frame.at["cppo", "masked"] == pytest.approx(0.041, abs=1e-3)
    assert frame.at["cppo", "digit"] == pytest.approx(0.7, abs=0.01)
    assert frame.at["cppo", "A < 0"] == pytest.approx(0.8, abs=0.01)
    assert frame.at["dppo_tv", "by budget"] == 0
    assert frame.at["cppo", "masked most"].startswith("'7' 50")
    assert frame.at["pg", "masked"] == 0
    assert frame.at["pg", "digit"] == ""


def test_a_method_that_masks_nothing_is_not_drawn_and_without_counts_the_figure_says_so(
    runs: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    sheet = drawn("what_the_mask_removes", load_study(runs[0], "quickstart"), "")
    assert [text.get_text() for text in sheet.legends[0].get_texts()] == ["dppo_tv", "cppo"]
    for folder in write_sweep(tmp_path, algos=("cppo",), seeds=(0,)):
        (folder / FILE).unlink()
    bare = load_study(tmp_path, "quickstart")
    assert masked_tokens_table(bare) is None
    with pytest.raises(CannotDraw, match=r"masked_tokens\.json"):
        drawn("what_the_mask_removes", bare, "")


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"steps": 1, "columns": ["tokens"], "total": [1], "cells": {}}', "{"]
)
def test_a_damaged_file_is_no_file(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    assert read_masked_tokens(tmp_path) is None


def test_a_region_that_never_acted_is_among_the_caveats_once(tmp_path: Path) -> None:
    import json

    for folder in write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0, 1), baseline="cppo"):
        path = folder / "run.json"
        info = json.loads(path.read_text(encoding="utf-8"))
        info["warnings"] = ["The trust region of grpo never acted."] if info["method"] == "grpo" else []
        path.write_text(json.dumps(info), encoding="utf-8")
    study = load_study(tmp_path, "quickstart")
    said = [caveat for caveat in caveats(study, summarise(study)) if "never acted" in caveat]
    assert said == ["The trust region of grpo never acted. (2 runs of grpo)"]

"""The section "How much is a smaller step?" of the report and of the page of reproductions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from figure_drawing import drawn
from run_folders import write_sweep
from tuned_runs import RATES, over_rates, run

from cppo_lab.analysis.figures import DoesNotApply, style
from cppo_lab.analysis.figures.axis_curves import rate_figure, threshold_figure
from cppo_lab.analysis.figures.control_rows import control_figure
from cppo_lab.analysis.figures.looks import looks_of
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.report import write_report
from cppo_lab.analysis.reproductions.document import page
from cppo_lab.analysis.reproductions.items import read_item
from cppo_lab.analysis.reproductions.step_size_section import one_rate_note
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.analysis.step_size import step_size
from cppo_lab.analysis.step_size_text import HEADING

CURVES = {"pg": [0.66, 0.74, 0.66, 0.40], "cppo": [0.66, 0.74, 0.76, 0.66], "grpo": [0.6, 0.7, 0.72, 0.6]}


def both_regimes(noise: float = 0.02) -> RunTable:
    tables = [
        over_rates(CURVES, seeds=4, noise=noise, panel=f"regime={regime}", kl={"cppo": 0.5}, draw=number)
        for number, regime in enumerate(("many_updates", "mismatch"))
    ]
    return RunTable(tuple(each for table in tables for each in table.runs))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("outputs")
    write_sweep(
        output,
        algos=("pg", "cppo"),
        seeds=(0, 1, 2),
        learning_rates=(1e-4, 2e-4, 4e-4),
        profiles=False,
        baseline="pg",
    )
    return output


def test_a_sweep_over_rates_has_the_section_on_both_pages(outputs: Path, tmp_path: Path) -> None:
    files = write_report(outputs, "quickstart", destination=tmp_path, formats=("html", "md", "csv"))
    assert files.html is not None
    assert files.markdown is not None
    for text in (files.html.read_text(encoding="utf-8"), files.markdown.read_text(encoding="utf-8")):
        assert HEADING in text
        assert "cppo at its best (lr=" in text
        assert "over plain policy gradient at its best" in text
        assert "What is left beyond a smaller step" in text
        assert "Final accuracy over the learning rate" in text
        assert "Final accuracy over the threshold" not in text
    assert {path.stem for path in files.tables} >= {"control", "sensitivity"}


def test_a_sweep_of_methods_alone_has_no_such_section(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("pg", "cppo"), seeds=(0, 1), profiles=False, baseline="pg")
    files = write_report(tmp_path, "quickstart", formats=("md",))
    assert files.markdown is not None
    text = files.markdown.read_text(encoding="utf-8")
    assert HEADING not in text
    assert "smaller step" not in text
    with pytest.raises(DoesNotApply):
        drawn("control", load_study(tmp_path, "quickstart"))


def test_every_method_has_a_line_a_ring_and_a_name_in_each_panel() -> None:
    known = step_size(both_regimes(), {"pg"})
    assert known is not None
    with style.house_style():
        figure = rate_figure(known, looks_of(tuple(CURVES)))
    figure.draw_without_rendering()
    accuracy = figure.axes[:2]
    for axes in accuracy:
        lines = {str(line.get_label()): line for line in axes.lines if str(line.get_label()) in CURVES}
        assert set(lines) == set(CURVES)
        np.testing.assert_allclose(np.asarray(lines["pg"].get_xdata(), dtype=float), RATES)
        rings = [line for line in axes.lines if line.get_marker() == "o" and line.get_color() == "none"]
        assert len(rings) == 3
        assert {text.get_text() for text in axes.texts} == set(CURVES)
        assert axes.get_ylim()[1] < 0.9
    assert len(figure.axes) == 6


def test_the_published_threshold_is_marked_and_masking_shown() -> None:
    runs = [
        run("cppo", seed, final, masked=0.02 / delta, algo__trust_region__delta=delta)
        for delta, final in ((0.05, 0.5), (0.15, 0.7), (0.3, 0.72), (0.6, 0.7))
        for seed in range(3)
    ]
    runs += [run("pg", seed, 0.73, algo__trust_region__delta="none") for seed in range(3)]
    known = step_size(RunTable(tuple(runs)), {"pg"})
    assert known is not None
    assert known.axes == ("algo.trust_region.delta",)
    assert known.controls == ()
    with style.house_style():
        figure = threshold_figure(known, "algo.trust_region.delta", looks_of(("cppo",)))
    accuracy, masked = figure.axes
    marks = [line for line in accuracy.lines if line.get_marker() == "|"]
    assert [float(np.asarray(mark.get_xdata()).item()) for mark in marks] == [0.15]
    (plain,) = (line for line in accuracy.lines if line.get_label() == "no rule")
    np.testing.assert_allclose(np.asarray(plain.get_ydata(), dtype=float), 0.73)
    assert masked.get_ylabel() == "tokens masked"


def test_the_control_figure_has_a_dot_for_each_control() -> None:
    known = step_size(both_regimes(), {"pg"})
    assert known is not None
    with style.house_style():
        figure = control_figure(known.controls, looks_of(tuple(CURVES)))
    for axes in figure.axes:
        assert sum(line.get_marker() == "D" for line in axes.lines) == 2
        assert sum(line.get_marker() == "s" for line in axes.lines) == 2
        assert {label.get_text() for label in axes.get_yticklabels()} == {"cppo", "grpo"}


def test_the_page_of_reproductions_shows_a_sweep_over_rates(tmp_path: Path) -> None:
    table = both_regimes(noise=0.0)
    item = read_item("lr_sensitivity", tmp_path)
    assert item.step_size is None  # no rows yet
    shown = page([replace(item, table=table, step_size=step_size(table, {"pg"}))], "images")
    assert HEADING in shown
    assert "images/lr_sensitivity-rates.png" in shown
    assert "images/lr_sensitivity-control.png" in shown
    assert "| regime=mismatch | cppo | lr=2e-4 | 4 |" in shown


def test_the_readme_says_at_which_rate_its_runs_were_made_and_which_are_better(tmp_path: Path) -> None:
    table = both_regimes(noise=0.0)
    table1, item = read_item("table1", tmp_path), read_item("lr_sensitivity", tmp_path)
    assert one_rate_note([table1, item]) == ""
    said = one_rate_note([table1, replace(item, table=table, step_size=step_size(table, {"pg"}))])
    assert "one learning rate for all methods, 4e-4" in said
    assert (
        "(5e-5 to 4e-4, n = 4), a smaller one is best for 6 of 6 methods and regimes (1e-4 to 2e-4)" in said
    )

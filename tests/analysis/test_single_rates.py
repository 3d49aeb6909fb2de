"""The report of a sweep over the learning rate: each method at its best first, single rates folded away."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_folders import write_sweep
from tuned_runs import over_rates

from cppo_lab.analysis.at_best_text import Regime, at_best_verdict
from cppo_lab.analysis.contrasts import estimate
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.report import write_report, write_study
from cppo_lab.analysis.page.table_sets import all_tables
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.analysis.single_rates import folded_panels, panels_by_regime
from cppo_lab.analysis.step_size import step_size
from cppo_lab.analysis.step_size_text import HEADING
from cppo_lab.analysis.summary import MethodResult, summarise
from cppo_lab.analysis.verdicts import SINGLE_RATES, verdicts

Invoke = Callable[..., tuple[int, str, str]]


def written(output: Path, *, algos: tuple[str, ...] = ("pg", "cppo"), seeds: int = 4) -> Path:
    write_sweep(
        output,
        algos=algos,
        seeds=tuple(range(seeds)),
        learning_rates=(5e-5, 1e-4, 4e-4),
        baseline=algos[0],
    )
    return output


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def report(output: Path) -> tuple[str, str]:
    files = write_report(output, "quickstart", formats=("html", "md"))
    assert files.html is not None
    assert files.markdown is not None
    return files.html.read_text(encoding="utf-8"), files.markdown.read_text(encoding="utf-8")


def test_the_default_rate_is_shown_and_the_others_are_folded(output: Path) -> None:
    summary = summarise(load_study(output, "quickstart"))
    assert panels_by_regime(summary) == {"": ("lr=5e-5", "lr=1e-4", "lr=4e-4")}
    assert folded_panels(summary) == ("lr=5e-5", "lr=4e-4")


def test_without_the_default_rate_the_middle_one_is_shown(tmp_path: Path) -> None:
    write_sweep(
        tmp_path, algos=("pg", "cppo"), seeds=(0, 1), learning_rates=(2e-4, 3e-4, 4e-4), profiles=False
    )
    assert folded_panels(summarise(load_study(tmp_path, "quickstart"))) == ("lr=2e-4", "lr=4e-4")


def test_without_plain_policy_gradient_no_panel_is_folded(tmp_path: Path) -> None:
    summary = summarise(load_study(written(tmp_path, algos=("grpo", "cppo"), seeds=2), "quickstart"))
    assert panels_by_regime(summary) == {}
    assert folded_panels(summary) == ()
    assert [title for title, _ in verdicts(load_study(tmp_path, "quickstart"), summary)] == [
        "lr=5e-5",
        "lr=1e-4",
        "lr=4e-4",
    ]


def test_runs_that_have_not_started_do_not_hide_plain_policy_gradient(tmp_path: Path) -> None:
    write_sweep(
        tmp_path,
        algos=("pg", "cppo"),
        seeds=(0, 1, 2),
        learning_rates=(1e-4, 4e-4),
        absent=[("pg", 2), ("cppo", 2)],
        profiles=False,
    )
    summary = summarise(load_study(tmp_path, "quickstart"))
    assert summary.step_size is not None
    assert [control.method for control in summary.step_size.controls] == ["cppo"]


def test_page_markdown_and_terminal_say_the_same_verdict_before_all_else(
    output: Path, report: tuple[str, str], invoke: Invoke
) -> None:
    study = load_study(output, "quickstart")
    ((title, sentences),) = verdicts(study, summarise(study))
    assert title == ""
    assert sentences[0].startswith("With each method at its best learning rate, cppo ended ")
    assert "A comparison at lr=4e-4 alone would have found cppo (" in " ".join(sentences)
    page, markdown = report
    code, out, err = invoke("report", "quickstart", "--terminal", "-o", str(output))
    assert code == 0, err
    printed = " ".join(out.split())
    for sentence in sentences:
        assert sentence in page
        assert sentence in markdown.replace("\\", "")
        assert sentence in printed
    assert printed.index(sentences[0]) < printed.index(SINGLE_RATES)
    assert "cppo ended highest" not in printed


def test_single_rates_are_folded_on_the_page_and_last_in_markdown(report: tuple[str, str]) -> None:
    page, markdown = report
    (inside,) = re.findall(r'<details class="more" id="single-rates">.*?</details>', page, flags=re.DOTALL)
    assert inside.count("ended highest") == page.count("ended highest") == 3
    assert 'id="table-results"' in inside
    headings = re.findall(r"^## (.*)$", markdown, flags=re.MULTILINE)
    assert headings[:3] == ["Verdict", HEADING, "Accuracy"]
    assert headings[-1] == SINGLE_RATES
    assert markdown.rindex("ended highest") > markdown.index(f"## {SINGLE_RATES}")
    assert re.findall(r'<section id="(\w+)"', page)[:3] == ["verdict", "step_size", "accuracy"]


def test_figures_are_drawn_of_the_shown_rate_alone_unless_all_are_asked_for(
    output: Path, tmp_path: Path
) -> None:
    study = load_study(output, "quickstart")
    names = {path.stem for path in write_study(study, tmp_path / "first", ("png",)).figures}
    assert "stability-lr-1e-4" in names
    assert not any("lr-5e-5" in name or "lr-4e-4" in name for name in names)
    files = write_study(study, tmp_path / "all", ("html", "md"), all_panels=True)
    more = {path.stem for path in files.figures}
    assert more >= names | {"stability-lr-5e-5", "stability-lr-4e-4", "accuracy-other-rates"}
    assert files.html is not None
    assert files.markdown is not None
    page = files.html.read_text(encoding="utf-8")
    folded = "".join(re.findall(r"<details.*?</details>", page, flags=re.DOTALL))
    assert 'id="figure-stability-lr-4e-4"' in folded
    assert 'id="figure-stability-lr-1e-4"' not in folded
    assert "stability-lr-4e-4.png" in files.markdown.read_text(encoding="utf-8").split(SINGLE_RATES)[-1]


def test_table_files_have_every_rate(output: Path) -> None:
    study = load_study(output, "quickstart")
    made = all_tables(study, summarise(study))
    assert len(made["results"].rows) == len(made["stability"].rows) == 6
    assert [header for header, _ in made["rates"].columns] == ["method", "lr=5e-5", "lr=1e-4", "lr=4e-4"]
    assert [row[0].text for row in made["rates"].rows] == ["pg", "cppo"]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (1, "A single seed cannot both choose each method's learning rate and judge it"),
        (2, "With 2 seeds, a single seed chooses each learning rate: too few for a verdict"),
    ],
)
def test_too_few_seeds_are_said_in_plain_words(tmp_path: Path, seeds: int, said: str) -> None:
    study = load_study(written(tmp_path, seeds=seeds), "quickstart")
    ((_, sentences),) = verdicts(study, summarise(study))
    text = " ".join(sentences)
    assert said in text
    assert "The highest mean of each, on these same seeds and so somewhat too high: pg " in text


def test_a_rate_at_which_training_without_a_rule_falls_behind_is_told_from_one_at_which_it_does_not() -> None:
    table = over_rates({"pg": [0.7, 0.3], "cppo": [0.71, 0.6]}, rates=(1e-4, 4e-4), seeds=2)
    known = step_size(table, {"pg"})
    assert known is not None
    sentences = at_best_verdict(Regime(known.controls, results_of(table), ("trainer.lr",)))
    text = " ".join(sentences)
    assert "plain policy gradient ended at 30.0%, against 70.0% at lr=1e-4" in text
    assert "training without a rule falls behind at lr=4e-4 and not at lr=1e-4" in text
    better = over_rates({"pg": [0.7, 0.3], "cppo": [0.8, 0.6]}, rates=(1e-4, 4e-4), seeds=2)
    known = step_size(better, {"pg"})
    assert known is not None
    sentences = at_best_verdict(Regime(known.controls, results_of(better), ("trainer.lr",)))
    assert "falls behind" not in " ".join(sentences)


def results_of(table: RunTable) -> tuple[MethodResult, ...]:
    """The result of every method at every rate."""
    groups = dict.fromkeys((run.panel, run.method, run.axes["trainer.lr"]) for run in table.runs)
    made = []
    for panel, method, rate in groups:
        runs = [replace(run, collapsed=0.0) for run in table.of(panel, method)]
        final = estimate(np.array([run.final for run in runs]))
        made.append(
            MethodResult(
                group=Group(method, panel, f"{method}, {panel}", (("algo", method), ("trainer.lr", rate))),
                runs=tuple(runs),
                shown=len(runs),
                unfinished=0,
                failed=0,
                diverged=0,
                start=None,
                final=final,
                gain=None,
                best=None,
                area=None,
                median_step=math.nan,
                interquartile=math.nan,
                interquartile_interval=None,
            )
        )
    return tuple(made)

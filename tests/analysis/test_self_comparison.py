"""The procedure that names differences, where there is none and where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from run_folders import write_sweep

from cppo_lab.analysis import statistics
from cppo_lab.analysis.aa import check_methods, check_split
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.run_table import Run
from cppo_lab.analysis.summary import summarise

Invoke = Callable[..., tuple[int, str, str]]


def runs_of(finals: Sequence[float]) -> list[Run]:
    return [Run(run_id=str(number), final=float(final)) for number, final in enumerate(finals)]


def test_a_method_does_not_differ_from_itself_in_more_than_a_twentieth_of_a_thousand_splits() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(1000):
        # Eight runs of one method: accuracies with a long lower tail, as collapses make it.
        found += check_split("one", runs_of(0.7 - 0.05 * rng.gamma(1.5, size=8)), rng, splits=1).found
    assert found <= 50


def test_halves_of_two_different_methods_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    finals = np.ravel(np.column_stack([rng.normal(0.7, 0.01, 6), rng.normal(0.5, 0.01, 6)]))
    check = check_split("two in one", runs_of(finals), rng)
    assert check.found
    assert check.verdict == "a difference"
    assert check.difference is not None
    assert check.difference.mean == pytest.approx(0.2, abs=0.02)


def test_too_few_runs_say_so() -> None:
    check = check_split("few", runs_of([0.1, 0.2, 0.3]), np.random.default_rng(0))
    assert check.verdict == "too few runs (needs 4)"
    assert not check.found


@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("shape", ["normal", "binomial"])
def test_intervals_cover_the_truth_19_times_in_20(n: int, shape: str) -> None:
    rng = np.random.default_rng(n)
    inside, trials = 0, 4000
    for _ in range(trials):
        drawn = rng.normal(0.6, 0.08, size=n), rng.binomial(1024, 0.6, size=n) / 1024
        values = drawn[("normal", "binomial").index(shape)]
        interval = statistics.t_interval(values)
        inside += interval.low <= 0.6 <= interval.high
    assert 0.93 <= inside / trials <= 0.97


def test_every_method_of_a_sweep_is_checked(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=range(6))
    checks = check_methods(summarise(load_study(tmp_path, "quickstart")), np.random.default_rng(0))
    assert [check.label for check in checks] == ["grpo", "cppo"]
    assert all(check.runs == 6 and 0 <= check.share_found < 0.2 for check in checks)


def test_verdict_check_and_comparison_on_the_terminal_write_nothing(tmp_path: Path, invoke: Invoke) -> None:
    folders = write_sweep(tmp_path, algos=("pg", "grpo"), seeds=range(4), baseline="pg")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = invoke("report", "--terminal", "-o", str(tmp_path))
    assert code == 0, err
    assert "higher" in out
    assert "pg" in out
    code, out, err = invoke("report", "--aa", "-o", str(tmp_path))
    assert code == 0, err
    assert "half against half" in out
    code, out, err = invoke("compare", folders[0].name, folders[-1].name, "-o", str(tmp_path))
    assert code == 0, err
    assert "pg" in out
    assert "grpo" in out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["report", "--terminal", "--aa"], ["--terminal, --aa"]),
        (["report", "--terminal", "--to", "x"], ["--to x"]),
        (["report", "absent", "--terminal"], ["absent"]),
        (["compare", "absent", "absent"], ["RUN absent"]),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    tmp_path: Path, invoke: Invoke, arguments: list[str], named: list[str]
) -> None:
    write_sweep(tmp_path, algos=("pg",), seeds=(0,))
    code, _, err = invoke(*arguments, "-o", str(tmp_path))
    assert code == 2
    assert all(word in err for word in named), err


def test_one_run_is_not_compared_with_itself(tmp_path: Path, invoke: Invoke) -> None:
    (folder,) = write_sweep(tmp_path, algos=("pg",), seeds=(0,))
    code, _, err = invoke("compare", folder.name, folder.name, "-o", str(tmp_path))
    assert code == 2
    assert "at least two" in err


def test_tables_come_as_escaped_latex(tmp_path: Path, invoke: Invoke) -> None:
    write_sweep(tmp_path, algos=("dppo_tv", "pg"), seeds=range(3))
    assert invoke("report", "-o", str(tmp_path))[0] == 0
    text = (tmp_path / "reports" / "quickstart" / "tables" / "results.tex").read_text(encoding="utf-8")
    assert r"\toprule" in text
    assert r"dppo\_tv" in text
    assert r"\%" in text
    assert text.isascii()

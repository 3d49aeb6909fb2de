"""Sigmoids of accuracy over compute: known ones are recovered, and curves that say nothing are refused in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from figure_drawing import drawn
from run_folders import write_sweep

from cppo_lab.analysis.figures.registry import DoesNotApply
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.report import collect
from cppo_lab.analysis.run_table import ACCURACY, Array
from cppo_lab.analysis.sigmoid import Fit, Refused, Sigmoid, fit, fits

COMPUTE = np.linspace(1.0, 12.0, 12) * 1e9
KNOWN = [
    Sigmoid(0.3, 0.8, 2e9, 1.5),
    Sigmoid(0.1, 0.95, 4e9, 2.5),
    Sigmoid(0.35, 0.6, 1e9, 1.0),
]


def runs_of(curve: Array, start: float, n: int, noise: float) -> tuple[Array, Array, Array]:
    """Compute [n, E], accuracy [n, E] and start [n] of runs around a curve [E]."""
    generator = np.random.default_rng(3)
    accuracy = curve + generator.normal(0, noise, (n, len(curve)))
    return np.tile(COMPUTE[: len(curve)], (n, 1)), accuracy, start + generator.normal(0, noise, n)


def refusal(curve: Array, start: float, n: int = 8, noise: float = 0.01) -> str:
    found = fit(*runs_of(curve, start, n, noise))
    assert isinstance(found, Refused), found
    return found.reason


@pytest.mark.parametrize("known", KNOWN)
def test_known_parameters_are_recovered_without_noise(known: Sigmoid) -> None:
    found = fit(*runs_of(known.at(COMPUTE), known.start, 4, 0.0))
    assert isinstance(found, Fit), found
    assert found.sigmoid.asymptote == pytest.approx(known.asymptote, abs=1e-3)
    assert found.sigmoid.midpoint == pytest.approx(known.midpoint, rel=5e-3)
    assert found.sigmoid.exponent == pytest.approx(known.exponent, rel=5e-3)


@pytest.mark.parametrize("n", [4, 8])
def test_intervals_hold_the_known_parameters_about_as_often_as_they_say(n: int) -> None:
    generator = np.random.default_rng(1)
    known, held, tries = KNOWN[0], np.zeros(3), 60
    for _ in range(tries):
        # Seeds differ by their whole curve and by the noise of each evaluation.
        offset = generator.normal(0, 0.03, (n, 1))
        accuracy = known.at(COMPUTE) + offset + generator.normal(0, 0.015, (n, len(COMPUTE)))
        found = fit(np.tile(COMPUTE, (n, 1)), accuracy, known.start + offset[:, 0])
        assert isinstance(found, Fit), found
        ends = np.array([found.interval(place) for place in range(3)])
        truth = np.array([known.asymptote, known.midpoint, known.exponent])
        held += (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    assert (held / tries >= 0.85).all(), held / tries


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03])
@pytest.mark.parametrize(("start", "end"), [(0.05, 0.95), (0.3, 0.7), (0.3, 0.4)])
def test_a_straight_line_has_no_asymptote(start: float, end: float, noise: float) -> None:
    said = refusal(start + (end - start) * COMPUTE / COMPUTE[-1], start, noise=noise)
    assert "has not bent" in said or "does not rise significantly" in said


def test_three_points_are_too_few() -> None:
    assert refusal(KNOWN[0].at(COMPUTE[:3]), 0.3) == "it has 3 evaluations, and needs 8"


def test_two_runs_are_too_few() -> None:
    assert refusal(KNOWN[0].at(COMPUTE), 0.3, n=2) == "it has 2 finished runs, and needs 3 for an interval"


def test_a_curve_that_falls_or_stays_is_refused() -> None:
    falling = np.concatenate([np.linspace(0.4, 0.8, 6), np.linspace(0.75, 0.3, 6)])
    assert refusal(falling, 0.3) == "it falls at its end"
    assert refusal(np.full(12, 0.3), 0.3) == "it does not rise significantly"


def test_a_curve_that_bends_far_from_its_asymptote_is_refused() -> None:
    slow = Sigmoid(0.1, 1.0, 30e9, 0.6)
    assert "of the gain to its fitted asymptote" in refusal(slow.at(COMPUTE), 0.1, noise=0.002)


def test_a_straight_line_is_refused_in_nearly_all_draws_and_a_bent_one_in_hardly_any() -> None:
    generator = np.random.default_rng(5)

    def share_fitted(curve: Array, start: float) -> float:
        tries = [
            fit(np.tile(COMPUTE, (6, 1)), curve + generator.normal(0, 0.02, (6, 12)), np.full(6, start))
            for _ in range(60)
        ]
        return sum(isinstance(each, Fit) for each in tries) / len(tries)

    assert share_fitted(0.3 + 0.4 * COMPUTE / COMPUTE[-1], 0.3) <= 0.05
    assert share_fitted(KNOWN[0].at(COMPUTE), 0.3) >= 0.9


def test_methods_of_the_same_seeds_are_compared_in_pairs() -> None:
    high, low = Sigmoid(0.3, 0.85, 2e9, 1.5), Sigmoid(0.3, 0.75, 2e9, 1.5)
    fast = Sigmoid(0.3, 0.75, 1e9, 1.5)
    seeds = tuple("abcdefgh")
    first, second, third = (
        fit(*runs_of(each.at(COMPUTE), 0.3, 8, 0.01), seeds) for each in (high, low, fast)
    )
    assert isinstance(first, Fit)
    assert isinstance(second, Fit)
    assert isinstance(third, Fit)
    higher, lowest, highest = first.higher(second) or (0.0, 0.0, 0.0)
    assert higher == pytest.approx(0.1, abs=0.02)
    assert 0.05 < lowest < highest < 0.15
    ratio, *_ = third.slower(second) or (0.0, 0.0, 0.0)
    assert ratio == pytest.approx(0.5, abs=0.1)
    others = fit(*runs_of(low.at(COMPUTE), 0.3, 8, 0.01), tuple("bcdefghi"))
    assert isinstance(others, Fit)
    assert first.higher(others) is None


def bent(study: Study) -> Study:
    """The study with accuracies that follow sigmoids: one method reaches half of its gain in half the steps."""
    midpoints = study.metrics["run_id"].map(study.runs["method"]).map({"cppo": 2.0, "grpo": 4.0})
    curve = 0.36 + 0.44 / (1 + (midpoints / study.metrics["step"].clip(lower=1e-9)) ** 2)
    known = midpoints.notna() & study.metrics[ACCURACY].notna()
    noise = np.random.default_rng(2).normal(0, 0.005, len(known))
    accuracy = study.metrics[ACCURACY].mask(known, curve + noise)
    return replace(study, baseline="grpo", metrics=study.metrics.assign(**{ACCURACY: accuracy}))


def test_long_curves_get_a_table_and_a_figure_and_short_ones_neither(tmp_path: Path) -> None:
    write_sweep(tmp_path / "long", algos=("grpo", "cppo", "pg"), seeds=range(5), steps=24)
    write_sweep(tmp_path / "short", algos=("grpo", "cppo"), seeds=(0, 1))
    long, short = (load_study(tmp_path / name, "quickstart") for name in ("long", "short"))
    long = bent(long)
    axis, found = fits(long)
    assert axis.key == "flops"
    assert isinstance(found["cppo"], Fit)
    assert isinstance(found["pg"], Refused)
    table = collect(long, {"csv"}).tables["scaling"].frame().set_index("method")
    assert float(table.loc["cppo", "asymptote"]) == pytest.approx(0.8, abs=0.02)
    assert float(table.loc["cppo", "midpoint over baseline's"]) == pytest.approx(0.5, abs=0.1)
    assert "it " in str(table.loc["pg", "not fitted"])
    assert len(drawn("scaling", long).axes) == 1
    assert "scaling" not in collect(short, {"csv"}).tables
    with pytest.raises(DoesNotApply):
        drawn("scaling", short)

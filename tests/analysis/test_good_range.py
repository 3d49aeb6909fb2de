"""Good ranges: hand-computed, and what must leave them as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuned_runs import RATES, over_rates, run

from cppo_lab.analysis.good_range import good_octaves, range_contrast, sensitivity
from cppo_lab.analysis.grids import Grid, grids, tuning_axes
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.analysis.step_size import step_size
from cppo_lab.analysis.step_size_text import open_end, range_text, range_verdict

OCTAVES = np.log2(np.array(RATES))
curves = st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).map(np.array)


def grid(table: RunTable, method: str) -> Grid:
    return next(each for each in grids(table) if each.method == method)


def test_octaves_within_three_points_are_counted_along_straight_lines() -> None:
    # 0.60 to 0.70 passes 0.67 after 0.7 of an octave, 0.70 to 0.64 after a half, 0.64 to 0.40 lies below.
    assert good_octaves(OCTAVES, np.array([0.60, 0.70, 0.64, 0.40])) == pytest.approx(0.3 + 0.5)


def test_a_range_in_two_pieces_is_their_sum() -> None:
    assert good_octaves(OCTAVES, np.array([0.70, 0.64, 0.70, 0.64])) == pytest.approx(3 * 0.5)


def test_a_flat_curve_is_good_wherever_it_was_tried() -> None:
    assert good_octaves(OCTAVES, np.full(4, 0.5)) == pytest.approx(3.0)


@given(curve=curves, shift=st.floats(-1.0, 1.0))
def test_a_range_does_not_depend_on_the_height_of_the_curve(curve: np.ndarray, shift: float) -> None:
    assert good_octaves(OCTAVES, curve + shift) == pytest.approx(
        float(good_octaves(OCTAVES, curve)), abs=1e-6
    )


@given(curve=curves, segment=st.integers(0, 2), share=st.floats(0.01, 0.99))
def test_a_setting_on_the_line_between_two_others_changes_nothing(
    curve: np.ndarray, segment: int, share: float
) -> None:
    at = OCTAVES[segment] + share * (OCTAVES[segment + 1] - OCTAVES[segment])
    finer = np.insert(OCTAVES, segment + 1, at)
    refined = np.insert(curve, segment + 1, np.interp(at, OCTAVES, curve))
    assert good_octaves(finer, refined) == pytest.approx(float(good_octaves(OCTAVES, curve)), abs=1e-6)


@given(curve=curves, tolerance=st.floats(0.0, 0.5), more=st.floats(0.0, 0.5))
def test_more_tolerance_is_never_narrower(curve: np.ndarray, tolerance: float, more: float) -> None:
    narrow, wide = (float(good_octaves(OCTAVES, curve, each)) for each in (tolerance, tolerance + more))
    assert 0.0 <= narrow <= wide + 1e-9
    assert wide <= 3.0 + 1e-9


def test_the_best_setting_and_whether_settings_on_both_sides_were_tried() -> None:
    table = over_rates(
        {"pg": [0.6, 0.7, 0.64, 0.4], "cppo": [0.5, 0.6, 0.65, 0.7], "grpo": [0.7, 0.6, 0.5, 0.4]}
    )
    found = {method: sensitivity(grid(table, method)) for method in ("pg", "cppo", "grpo")}
    assert {method: curve.is_interior for method, curve in found.items() if curve} == {
        "pg": True,
        "cppo": False,
        "grpo": False,
    }
    texts = {method: (open_end(curve), range_text(curve.good)) for method, curve in found.items() if curve}
    assert texts["pg"] == ("", "0.8")
    assert texts["cppo"] == ("best at the largest tried", "at least 0.6")
    assert texts["grpo"] == ("best at the smallest tried", "at least 0.3")


def test_a_range_at_the_end_of_what_was_tried_is_a_lower_bound() -> None:
    curve = sensitivity(grid(over_rates({"pg": [0.68, 0.7, 0.6, 0.4]}), "pg"))
    assert curve is not None
    assert curve.is_interior
    assert (curve.good.open_below, curve.good.open_above) == (True, False)
    assert open_end(curve) == "good up to the smallest tried"


def test_two_settings_are_no_curve() -> None:
    assert sensitivity(grid(over_rates({"pg": [0.6, 0.7]}, rates=(1e-4, 2e-4)), "pg")) is None


def test_one_seed_has_a_range_and_no_interval() -> None:
    curve = sensitivity(grid(over_rates({"pg": [0.6, 0.7, 0.64, 0.4]}, seeds=1), "pg"))
    assert curve is not None
    assert curve.good.octaves.mean == pytest.approx(0.8)
    assert not curve.good.octaves.has_interval


def test_the_difference_of_ranges_is_that_of_the_ranges() -> None:
    table = over_rates({"pg": [0.6, 0.7, 0.64, 0.4], "cppo": [0.6, 0.7, 0.7, 0.6]}, noise=0.01)
    one, other = (sensitivity(grid(table, method)) for method in ("cppo", "pg"))
    assert one is not None
    assert other is not None
    found = range_contrast(one.grid, other.grid)
    assert found.estimate is not None
    assert found.estimate.mean == pytest.approx(one.good.octaves.mean - other.good.octaves.mean)
    assert found.n == 6
    assert len(found.runs) == 6 * 8


def test_two_copies_of_one_method_seldom_differ_in_range() -> None:
    found = 0
    for draw in range(200):
        table = over_rates(
            {"a": [0.66, 0.72, 0.71, 0.6], "b": [0.66, 0.72, 0.71, 0.6]}, noise=0.03, seeds=8, draw=draw
        )
        found += range_contrast(grid(table, "a"), grid(table, "b")).p < 0.05
    # Five percent of 200 is 10; above 19 lies 0.3% of the binomial distribution.
    assert found <= 19


def test_no_verdict_rests_on_what_was_not_tried() -> None:
    known = step_size(
        over_rates({"pg": [0.6, 0.7, 0.6, 0.4], "cppo": [0.7, 0.7, 0.7, 0.7]}, noise=0.005, seeds=8), {"pg"}
    )
    assert known is not None
    (wider,) = known.ranges
    assert range_verdict(wider) == "wider"  # at least so much
    swapped = step_size(
        over_rates({"cppo": [0.6, 0.7, 0.6, 0.4], "pg": [0.7, 0.7, 0.7, 0.7]}, noise=0.005, seeds=8), {"pg"}
    )
    assert swapped is not None
    (narrower,) = swapped.ranges
    assert range_verdict(narrower) == "narrower"
    assert (narrower.at_least, narrower.at_most) == (False, True)


def test_only_settings_of_the_step_are_tuned() -> None:
    runs = [
        run("cppo", 0, 0.5, trainer__lr=rate, task__steps=steps, algo__trust_region__kind=kind)
        for rate in (1e-4, 2e-4)
        for steps in (2, 4)
        for kind in ("none", "prefix_budget")
    ]
    assert tuning_axes(runs) == ("trainer.lr",)


def test_a_panel_leaves_out_the_settings_of_the_grid() -> None:
    table = over_rates({"pg": [0.6, 0.7, 0.64, 0.4]}, panel="regime=mild")
    assert {each.panel for each in grids(table)} == {"regime=mild"}


def test_a_seed_that_lacks_a_setting_is_left_out() -> None:
    table = over_rates({"pg": [0.6, 0.7, 0.64, 0.4]}, seeds=3)
    found = grids(RunTable(table.runs[1:]))[0]
    assert (found.n, found.left_out, len(found.points)) == (2, 1, 4)


def test_a_setting_that_few_seeds_have_is_left_out_before_any_seed() -> None:
    table = over_rates({"pg": [0.6, 0.7, 0.64, 0.4]}, seeds=3)
    found = grids(RunTable(table.runs[2:]))[0]
    assert (found.n, found.left_out, len(found.points)) == (3, 0, 3)


def test_a_method_without_a_threshold_has_no_such_axis() -> None:
    delta = "algo__trust_region__delta"
    runs = [run("pg", seed, 0.5, trainer__lr=rate, **{delta: "null"}) for seed in (0, 1) for rate in RATES]
    runs += [
        run("cppo", seed, 0.5, trainer__lr=rate, **{delta: value})
        for seed in (0, 1)
        for rate in RATES
        for value in (0.1, 0.2, 0.4)
    ]
    found = {each.method: each.axes for each in grids(RunTable(tuple(runs)))}
    assert found == {"pg": ("trainer.lr",), "cppo": ("trainer.lr", "algo.trust_region.delta")}

"""Curves of a group: means that a failed run does not lift, bands, bins and sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from cppo_lab.analysis.figures.curves import Curves

NAN = math.nan


def curves(steps: Sequence[float], rows: Sequence[Sequence[float]], failed: Sequence[bool]) -> Curves:
    names = list("abc")[: len(rows)]
    return Curves(pd.DataFrame(rows, index=names, columns=steps), pd.Series(failed, index=names, dtype=bool))


def test_a_failed_run_is_continued_at_its_last_value() -> None:
    shown = curves([0, 2, 4], [[0.4, 0.1, NAN], [0.4, 0.5, 0.6]], [True, False])
    assert shown.mean().tolist() == [0.4, 0.3, 0.6]
    assert shown.carried().mean().tolist() == pytest.approx([0.4, 0.3, 0.35])
    assert shown.ends() == [(2.0, 0.1)]


def test_a_failed_run_is_continued_after_its_end_alone() -> None:
    shown = curves(
        [0, 1, 2, 3], [[NAN, 0.1, NAN, NAN], [NAN, NAN, 0.2, 0.3], [0.0, 0.1, 0.2, 0.3]], [True, True, False]
    )
    expected = [[NAN, 0.1, 0.1, 0.1], [NAN, NAN, 0.2, 0.3], [0.0, 0.1, 0.2, 0.3]]
    np.testing.assert_equal(shown.carried().values, expected)
    gap = curves([0, 1, 2, 3], [[0.4, NAN, 0.2, NAN], [0.4, 0.4, 0.4, 0.4]], [True, False])
    np.testing.assert_equal(gap.carried().values[0], [0.4, NAN, 0.2, 0.2])


def test_a_step_that_only_a_failing_run_recorded_has_no_mean() -> None:
    shown = curves([0, 2, 3, 4], [[0.4, 0.2, 0.1, NAN], [0.4, 0.5, NAN, 0.6]], [True, False])
    assert math.isnan(shown.mean()[2])
    assert math.isnan(shown.carried().mean()[2])
    assert shown.carried().mean()[3] == pytest.approx(0.35)
    low, high = shown.carried().band() or ([], [])
    assert math.isnan(low[2])
    assert (low[3], high[3]) == (0.1, 0.6)


def test_two_seeds_have_their_range_as_band_and_three_a_t_interval() -> None:
    two = curves([1], [[0.4], [0.6]], [False] * 2).band()
    three = curves([1], [[0.4], [0.5], [0.6]], [False] * 3).band()
    assert two is not None
    assert three is not None
    assert (two[0][0], two[1][0]) == (0.4, 0.6)
    assert three[1][0] - 0.5 == pytest.approx(4.302652729911275 * 0.1 / math.sqrt(3))
    assert curves([1], [[0.4]], [False]).band() is None


def test_cumulative_curves_skip_steps_that_were_not_recorded() -> None:
    shown = curves([1, 2, 3], [[1.0, NAN, 2.0]], [False]).cumulative()
    np.testing.assert_equal(shown.values, [[1.0, NAN, 3.0]])


def test_neighbouring_steps_are_replaced_by_the_median_of_what_each_seed_recorded() -> None:
    rows = [[1.0, 9.0, 2.0, NAN, NAN, NAN, 7.0], [NAN, 2.0, 4.0, 5.0, 1.0, 1.0, 3.0]]
    shown = curves(np.arange(1.0, 8.0).tolist(), rows, [False, True])
    binned = shown.binned(3)
    # Seven steps in three bins: three, two and two.
    assert binned.steps.tolist() == [2.0, 4.5, 6.5]
    np.testing.assert_equal(binned.values, [[2.0, NAN, 7.0], [3.0, 3.0, 2.0]])
    assert binned.failed.equals(shown.failed)
    assert shown.binned(7) is shown

"""When a run collapsed: the first evaluation from which on it stays below half of its start."""

import numpy as np
import pytest

from cppo_lab.analysis.reproductions.collapses import collapse_rows, down_for_good
from cppo_lab.analysis.run_table import Run, RunTable


def run(accuracy: list[float], method: str = "a", seed: int = 0) -> Run:
    steps = np.arange(len(accuracy)) * 4.0
    final = float(np.mean(accuracy[-3:]))
    return Run(
        run_id=f"{method}{seed}",
        panel="p",
        method=method,
        start=accuracy[0],
        final=final,
        collapsed=float(final < accuracy[0] / 2),
        accuracy=(steps, np.array(accuracy)),
    )


@pytest.mark.parametrize(
    ("accuracy", "step"),
    [
        ([0.4, 0.6, 0.1, 0.3, 0.1, 0.1], 16),
        ([0.4, 0.1, 0.1, 0.1], 4),
        ([0.4, 0.6, 0.5, 0.1], 12),
        ([0.4, 0.1, 0.1, 0.3], None),
        ([0.4, 0.6, 0.7, 0.8], None),
    ],
)
def test_a_run_is_down_from_where_it_does_not_come_back(accuracy: list[float], step: int | None) -> None:
    assert down_for_good(run(accuracy)) == step


def test_methods_without_a_collapse_are_left_out() -> None:
    runs = (
        run([0.4, 0.1, 0.1, 0.1], "a", 0),
        run([0.4, 0.6, 0.1, 0.1, 0.0], "a", 1),
        run([0.4, 0.6, 0.7, 0.7], "a", 2),
        run([0.4, 0.6, 0.7, 0.7], "b", 0),
        run([0.4, 0.1, 0.0, 0.21], "c", 0),
    )
    assert collapse_rows(RunTable(runs)) == [
        ("p", "a", "2 of 3", "4, 8"),
        ("p", "c", "1 of 1", "its last evaluations alone"),
    ]

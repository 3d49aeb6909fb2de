"""Who collapsed, and when."""

from __future__ import annotations

import numpy as np

from cppo_lab.analysis import statistics
from cppo_lab.analysis.run_table import Run, RunTable


def collapse_rows(table: RunTable) -> list[tuple[str, str, str, str]]:
    """Panel, method, how many of its runs collapsed, and from which step on, for those of which any did."""
    found = []
    for panel in table.panels:
        for method in table.methods(panel):
            runs = table.of(panel, method)
            fallen = [run for run in runs if run.collapsed == 1]
            if fallen:
                steps = sorted(step for run in fallen if (step := down_for_good(run)) is not None)
                when = ", ".join(str(step) for step in steps) or "its last evaluations alone"
                found.append((panel, method, f"{len(fallen)} of {len(runs)}", when))
    return found


def down_for_good(run: Run) -> int | None:
    """The first evaluated step from which on accuracy stays below half of the start; None if its last one is not."""
    steps, accuracy = run.accuracy
    if not len(accuracy) or not statistics.collapsed(float(accuracy[-1]), run.start):
        return None
    above = np.flatnonzero([not statistics.collapsed(float(value), run.start) for value in accuracy])
    return int(steps[0] if not len(above) else steps[above[-1] + 1])

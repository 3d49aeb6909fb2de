"""How long runs take, in words."""

from __future__ import annotations

from collections.abc import Sequence

from cppo_lab.cli.console import seconds


def time_left_text(times: Sequence[float | None], workers: int) -> str:
    """How long runs of `times` take with `workers` in parallel; None for a run of unknown time."""
    known = [time for time in times if time is not None]
    if len(known) == len(times):
        return f"about {seconds(time_left(known, workers))}"
    return f"at least {seconds(time_left(known, workers))}" if known else "an unknown time"


def time_left(times: Sequence[float], workers: int) -> float:
    """Seconds that runs of `times` take with `workers` in parallel: at least as long as the longest run."""
    return max(sum(times) / workers, max(times, default=0.0))

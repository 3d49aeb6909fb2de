"""Progress of a sweep: bars with rates and time left on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cppo_lab.cli.pace import Pace, token_speed
from cppo_lab.diagnostics.nothing_learnt import EARLY_STEPS, nothing_to_learn
from cppo_lab.sweeps.jobs import Event
from cppo_lab.training.activity import Activity

ACCURACY = "eval/heldout/accuracy"


def _percent(metrics: Mapping[str, Any]) -> str:
    value = metrics.get(ACCURACY)
    return "" if value is None else f"accuracy {100 * value:.1f}%"


class SweepProgress:
    """Shows the events of a sweep's workers as progress bars or lines."""

    def __init__(self, labels: Mapping[str, str], steps: Mapping[str, int], console: Console) -> None:
        self._labels, self._steps, self._console = labels, steps, console
        self._bars: dict[str, TaskID] = {}
        self._since: dict[str, float] = {}
        self._paces: dict[str, Pace] = {}
        self._phases: dict[str, tuple[tuple[int, str], float]] = {}
        self._early: dict[str, list[Mapping[str, Any]]] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._progress.add_task("[bold]all runs", total=len(steps), note="", rate="runs")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop updating the bars."""
        self._progress.stop()

    def _label(self, job: str) -> str:
        return self._labels.get(job, f"starting policy {job}".rstrip())

    def show(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "started":
            self._since[event.job] = time.monotonic()
            self._advance(event.job, 0, self._steps.get(event.job), "", "steps")
            self._say(f"{self._label(event.job)}: started")
        elif event.kind == "warmup":
            done, planned, loss = event.content
            self._advance(event.job, done, planned, f"loss {loss:.2f}", "updates")
            if self._pace_of(event.job).is_due():
                self._say(f"{self._label(event.job)}: warm-up, update {done}/{planned}, loss {loss:.2f}")
        elif event.kind == "activity":
            self._tell(event.job, event.content)
        elif event.kind == "step":
            step, metrics = event.content
            self._advance(event.job, step, self._steps[event.job], _percent(metrics), "steps")
            if ACCURACY in metrics:
                self._say(
                    f"{self._label(event.job)}: step {step}/{self._steps[event.job]}, {_percent(metrics)}"
                )
            self._warn_early(event.job, step, metrics)
        elif event.kind == "lost":
            self._console.print(
                f"[yellow]lost[/] {self._label(event.job)}: {event.content}; it is started again."
            )
        else:
            self._end(event)

    def _tell(self, job: str, activity: Activity) -> None:
        """Show what a run is doing within a step."""
        now = time.monotonic()
        phase, since = self._phases.get(job, (None, now))
        if phase != (activity.step, activity.kind):
            self._phases[job] = ((activity.step, activity.kind), now)
        if activity.kind == "updates":
            doing = f"update {activity.done + 1} of {activity.planned}"
        elif activity.kind == "start":
            doing = f"processes start, {activity.done} s of at most {activity.planned}"
        else:
            speed = token_speed(activity.done, activity.planned, now - since)
            doing = f"{activity.kind}, {speed}" if speed else activity.kind
        if job in self._bars:
            self._progress.update(self._bars[job], note=doing)
        if self._pace_of(job).is_due():
            # The last evaluation comes after the last step.
            step, steps = activity.step + 1, self._steps[job]
            self._say(f"{self._label(job)}: step {min(step, steps)}/{steps}, {doing}")

    def _pace_of(self, job: str) -> Pace:
        return self._paces.setdefault(job, Pace())

    def _advance(self, job: str, done: int, planned: int | None, note: str, unit: str) -> None:
        if job not in self._bars:
            self._bars[job] = self._progress.add_task(self._label(job), total=planned, note="", rate=unit)
        spent = time.monotonic() - self._since.get(job, time.monotonic())
        rate = f"{done / spent:.1f} {unit}/s" if spent > 0 and done else unit
        changes: dict[str, Any] = {"note": note} if note else {}
        self._progress.update(self._bars[job], completed=done, total=planned, rate=rate, **changes)

    def _warn_early(self, job: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Say at once what keeps a run from learning anything."""
        if step > EARLY_STEPS:
            return
        rows = self._early.setdefault(job, [])
        rows.append(metrics)
        if step == min(EARLY_STEPS, self._steps[job]):
            for said in nothing_to_learn(rows):
                line = f"Warning: {self._label(job)}: {said}"
                self._console.print(line, style="yellow", markup=False, soft_wrap=True)

    def _end(self, event: Event) -> None:
        bar = self._bars.pop(event.job, None)
        if bar is not None:
            self._progress.remove_task(bar)
        spent = time.monotonic() - self._since.get(event.job, time.monotonic())
        if event.kind == "failed":
            self._console.print(f"[red]failed[/] {self._label(event.job)}: {event.content}")
        else:
            self._console.print(f"[green]done[/] {self._label(event.job)} in {spent:.0f} s")
        if event.job in self._labels:
            self._progress.advance(self._all)

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, markup=False)

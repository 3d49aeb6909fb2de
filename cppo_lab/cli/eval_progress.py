"""Progress of an evaluation: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cppo_lab.cli.console import plural
from cppo_lab.cli.pace import Pace, token_speed
from cppo_lab.eval.sampling import Sampled


class EvaluationProgress:
    """Shows how many responses and tokens of an evaluation are sampled, how fast, and how long it can still take."""

    def __init__(self, task: str, console: Console) -> None:
        self._task, self._console = task, console
        self._pace = Pace()
        self._since = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._bar.add_task(f"{task} responses", total=None, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, sampled: Sampled) -> None:
        """Show how far the evaluation is."""
        note = token_speed(sampled.tokens, sampled.most_tokens, time.monotonic() - self._since)
        self._bar.update(self._all, completed=sampled.responses, total=sampled.wanted, note=note)
        is_start = sampled.tokens == 0
        if is_start:
            # The model is loaded: from here on the clock counts sampling alone.
            self._since, self._pace = time.monotonic(), Pace()
        is_over = sampled.responses == sampled.wanted
        if not self._console.is_terminal and not is_over and (is_start or self._pace.is_due()):
            done = f"{sampled.responses} of {plural(sampled.wanted, 'response')}"
            self._console.print(f"{self._task}: {', '.join(filter(None, (done, note)))}", markup=False)

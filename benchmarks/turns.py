"""What a worker of a benchmark says and hears: it waits for its turn, and tells what an iteration took."""

from __future__ import annotations

import json
import os
import resource
import sys
import time


class Turns:
    """Waits for lines on standard input and answers on standard output; whatever else is printed goes to the log."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._started = 0.0

    def wait(self) -> None:
        """Until it is this worker's turn."""
        if not sys.stdin.readline():
            raise SystemExit
        self._started = time.perf_counter()

    def tell(self, tokens: float) -> None:
        """That the iteration is over, and how many tokens it sampled."""
        seconds = time.perf_counter() - self._started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._answers.write(json.dumps({"seconds": seconds, "tokens": tokens, "peak_mib": peak}) + "\n")
        self._answers.flush()

"""Named points at which a test kills the process: between two writes that belong together. Standard library only."""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "CPPO_LAB_FAILPOINT"
"""`NAME` or `NAME:N`: the process kills itself when it comes to the point, for the Nth time."""

POINTS = frozenset(
    {
        "checkpoint-filled",
        "checkpoint-removed",
        "file-written",
        "folder-hidden",
        "mirror-named",
        "mirror-created",
        "mirror-metrics",
        "mirror-ended",
        "parent-created",
        "policy-saved",
        "store-made",
    }
)
_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kill this process (SIGKILL) if the environment asks for it at this point."""
    asked = os.environ.get(VARIABLE)
    if not asked:
        return
    assert name in POINTS, name
    _passed[name] += 1
    point, _, count = asked.partition(":")
    if point == name and _passed[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)

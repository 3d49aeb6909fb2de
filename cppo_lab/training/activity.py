"""What a run is doing within a training step, for those who wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Activity:
    """What is being done after `step` training steps: `done` units, of at most `planned`.

    Units are tokens in a `rollout` and an `evaluation`, minibatches in `updates`, and seconds in the `start` of a
    backend's processes, of which as many as are `planned` may pass.
    """

    step: int
    kind: Literal["start", "rollout", "updates", "evaluation"]
    done: int
    planned: int


OnActivity = Callable[[Activity], None]

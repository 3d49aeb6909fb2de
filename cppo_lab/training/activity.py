"""What a run is doing within a training step, for those who wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Activity:
    """What is being done after `step` training steps: `done` units, of at most `planned`.

    Units are tokens in a `rollout` and an `evaluation`, and minibatches in `updates`.
    """

    step: int
    kind: Literal["rollout", "updates", "evaluation"]
    done: int
    planned: int


OnActivity = Callable[[Activity], None]

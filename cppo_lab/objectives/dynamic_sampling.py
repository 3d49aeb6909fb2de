"""DAPO's dynamic sampling (arXiv 2503.14476): what becomes of prompts whose responses all earn the same reward."""

from __future__ import annotations

from typing import Annotated, Literal

from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.parameters import Param


class DynamicSamplingSpec(Coordinate, path="dynamic_sampling"):
    """Prompts without variance of reward: keep (none), skip (the batch shrinks), or refill."""

    kind: Literal["none", "skip", "refill"] = "none"
    metric: Annotated[
        Literal["accuracy", "reward"], Param(about="accuracy: before overlong shaping; reward: after it.")
    ] = "accuracy"
    max_rounds: Annotated[
        int, Param(at_least=1, about="refill: rounds of generation at most; what is there is then used.")
    ] = 4

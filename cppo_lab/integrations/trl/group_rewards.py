"""Advantages of groups in which some responses have no reward."""

from __future__ import annotations

import torch
from torch import Tensor

from cppo_lab.objectives import compute_advantages
from cppo_lab.objectives.advantages import AdvantageSpec, advantages


def live_groups(rewards: Tensor) -> Tensor:
    """Groups whose known rewards differ, bool [N] from [N, G] with NaN where there is none."""
    known = ~rewards.isnan()
    low, high = rewards.masked_fill(~known, torch.inf), rewards.masked_fill(~known, -torch.inf)
    return known.any(-1) & (low.amin(-1) != high.amax(-1))


def response_advantages(rewards: Tensor, spec: AdvantageSpec) -> Tensor:
    """One advantage per response [N * G] from rewards [N, G]; 0 where a reward is NaN, whose group goes without it.

    Raises ValueError for missing rewards under an advantage that reads the whole batch.
    """
    known = ~rewards.isnan()
    if bool(known.all()):
        return compute_advantages(rewards, spec)
    if "group" not in advantages[spec.kind].needs and spec.kind != "none":
        raise ValueError(
            f"a response has no reward from any function, which advantage.kind {spec.kind} cannot leave out."
        )
    found = torch.zeros_like(rewards)
    for row, its in enumerate(known):
        if bool(its.any()):
            found[row, its] = compute_advantages(rewards[row, its].unsqueeze(0), spec).to(found)
    return found.flatten()

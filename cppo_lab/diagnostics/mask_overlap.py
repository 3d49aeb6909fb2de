"""Mask overlap: which of the tokens that a run trains on other methods would mask, compared token by token."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.named import method
from cppo_lab.objectives.objective import TokenObjective, token_objective
from cppo_lab.objectives.spec import AlgoSpec

COMPARED = ("grpo", "dppo_tv", "cppo_binary", "trm_max", "trm_avg")
"""One method of each family, all computable from the log-probabilities of the sampled tokens alone."""


@dataclass(frozen=True)
class MaskOverlap:
    """How many of `tokens` tokens each method masks, and each pair of methods masks jointly."""

    rules: list[str]
    """Names of the methods, the run's own first."""
    rule_ids: list[str]
    """[rules] what makes each mask (`mask_rule_id`)."""
    tokens: int
    """Response tokens with a nonzero advantage; no others can be masked."""
    masked: list[int]
    """[rules]"""
    both: list[list[int]]
    """[rules, rules], symmetric; its diagonal is `masked`."""


class MaskOverlapCounter:
    """Counts over micro-batches which tokens `algo`, the run's own method, and the methods `compared` mask.

    The compared methods have the thresholds of their papers and are all anchored at the rollout policy. One that has
    the own method's name is left out.
    """

    def __init__(self, algo: AlgoSpec, compared: Sequence[str] = COMPARED) -> None:
        self._others = [_at_rollout_policy(name) for name in compared if name != algo.name]
        self._names = [algo.name, *(other.name for other in self._others)]
        self._ids = [mask_rule_id(rule) for rule in (algo, *self._others)]
        self._tokens = 0
        self._both = torch.zeros(len(self._names), len(self._names), dtype=torch.long)

    @torch.no_grad()
    def update(self, batch: TokenBatch, objective: TokenObjective) -> None:
        """Add one micro-batch with the objective of the run's own method."""
        can_be_masked = batch.response_mask & (objective.advantages != 0)
        masks = [objective.masked, *(token_objective(batch, other).masked for other in self._others)]
        masked = torch.stack([mask[can_be_masked] for mask in masks]).double()
        self._tokens += int(can_be_masked.sum())
        self._both += _pairs(masked)

    def result(self) -> MaskOverlap:
        """The counts so far."""
        masked = self._both.diagonal().tolist()
        return MaskOverlap(self._names, self._ids, self._tokens, masked, self._both.tolist())


def mask_rule_id(algo: AlgoSpec) -> str:
    """What decides a method's mask, its anchor aside, as 12 hexadecimal digits: divergence, trust region, selection and
    ratio.

    A key added later leaves it as it is while it has its neutral value.
    """
    parts = {"divergence": algo.divergence, "trust_region": algo.trust_region, "selection": algo.selection}
    content: dict[str, Any] = {name: found for name, part in parts.items() if (found := _acting(part))}
    content["ratio"] = algo.surrogate.ratio
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _acting(part: Coordinate) -> dict[str, Any]:
    return {
        name: _acting(value) if isinstance(value, Coordinate) else value
        for name, value, neutral in part.neutral_fields()
        if value != neutral
    }


def _pairs(masked: Tensor) -> Tensor:
    """[rules, rules] numbers of tokens that both mask, from `masked` [rules, tokens] of zeros and ones."""
    return (masked @ masked.T).round().long().cpu()


@cache
def _at_rollout_policy(name: str) -> AlgoSpec:
    return method(name).replace(anchor="rollout", force_anchor=True)

"""Which tokens different rules mask: every rule is asked about the same tokens, those that one run trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.named import method
from cppo_lab.objectives.objective import TokenObjective, token_objective
from cppo_lab.objectives.spec import AlgoSpec

WITNESSES = ("grpo", "dppo_tv", "cppo_binary", "trm_max", "trm_avg")
"""One rule of each family, all computable from the log-probabilities of the sampled tokens alone."""


@dataclass(frozen=True)
class Agreement:
    """How many of `tokens` tokens each rule masks, and each two of them both."""

    rules: list[str]
    tokens: int
    """Response tokens with an advantage other than zero: only they can be masked."""
    masked: list[int]
    """[rules]"""
    both: list[list[int]]
    """[rules, rules], symmetric; its diagonal is `masked`."""


class AgreementCounter:
    """Counts over micro-batches what `algo`, the run's own rule, and the witnesses mask.

    Every witness compares the policy with the rollout policy, whatever its own anchor, with its paper's
    thresholds; a witness that bears the own rule's name is left out.
    """

    def __init__(self, algo: AlgoSpec, witnesses: Sequence[str] = WITNESSES) -> None:
        self._witnesses = [_witness(name) for name in witnesses if name != algo.name]
        self._rules = [algo.name, *(rule.name for rule in self._witnesses)]
        self._tokens = 0
        self._both = torch.zeros(len(self._rules), len(self._rules), dtype=torch.long)

    @torch.no_grad()
    def update(self, batch: TokenBatch, objective: TokenObjective) -> None:
        """Add one micro-batch; `objective` is what the own rule made of it."""
        subject = batch.response_mask & (objective.advantages != 0)
        masks = [objective.masked, *(token_objective(batch, rule).masked for rule in self._witnesses)]
        decided = torch.stack([mask[subject] for mask in masks]).double()
        self._tokens += int(subject.sum())
        self._both += _pairs(decided)

    def result(self) -> Agreement:
        """The counts so far."""
        return Agreement(self._rules, self._tokens, self._both.diagonal().tolist(), self._both.tolist())


def _pairs(decided: Tensor) -> Tensor:
    """[rules, rules] counts of tokens that both rules mask, from `decided` [rules, tokens] of zeros and ones."""
    return (decided @ decided.T).round().long().cpu()


@cache
def _witness(name: str) -> AlgoSpec:
    return method(name).replace(anchor="rollout", force_anchor=True)

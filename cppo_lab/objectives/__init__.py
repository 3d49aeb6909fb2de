"""Every trust region of the field as a point in one space; needs torch alone.

    algo = method("cppo")
    objective = token_objective(TokenBatch(logp, rollout_logp, advantages, response_mask), algo)
    loss = aggregate(objective.loss, response_mask, algo.aggregation, denominator(response_mask,
    algo.aggregation))

`method` reads the shipped configuration files and needs PyYAML; `AlgoSpec` can also be written out by hand.
"""

from cppo_lab.objectives.advantages import compute_advantages, token_advantages
from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.critics import gae, value_loss
from cppo_lab.objectives.named import method, method_names
from cppo_lab.objectives.objective import TokenObjective, batch_statistics, token_objective
from cppo_lab.objectives.packing import unpack
from cppo_lab.objectives.spec import AlgoSpec, Requirements

__all__ = [
    "AlgoSpec",
    "FullDistributions",
    "Requirements",
    "TokenBatch",
    "TokenObjective",
    "TopK",
    "aggregate",
    "batch_statistics",
    "compute_advantages",
    "denominator",
    "gae",
    "method",
    "method_names",
    "token_advantages",
    "token_objective",
    "unpack",
    "value_loss",
]

"""First exit: a trust region that a response leaves once, for good.

The state at token t is the prefix that was sampled before it. Once the tokens of a response have drifted far in total,
the policy would hardly produce that prefix any more, and what its later tokens teach says little about the policy. So
DPPO's threshold holds until the summed divergence of the prefix exceeds `exit_at`; after that no token may move further
away.
"""

from typing import Annotated

import torch

from cppo_lab.objectives.decisions import Decision
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.prefixes import shift_right
from cppo_lab.objectives.trust_regions import Delta, RegionInputs, trust_regions


@trust_regions.register("first_exit", needs=["divergence", "gate"])
def first_exit(
    at: RegionInputs,
    *,
    delta: Delta,
    exit_at: Annotated[
        float, Param(above=0, always_shown=True, about="Most that the D of a prefix may add up to.")
    ] = 1.0,
) -> Decision:
    """DPPO's threshold until the prefix has drifted by exit_at in total, 0 from there on."""
    before = shift_right(at.divergence.cumsum(-1))
    threshold = torch.full_like(before, delta).masked_fill(before > exit_at, 0.0)
    within = at.divergence <= threshold
    violated = at.away & ~within
    return at.decide(
        within,
        lambda: torch.maximum(at.divergence / delta, torch.where(at.divergence > 0, before / exit_at, 0.0)),
        by_threshold=violated & (at.divergence > delta),
        by_budget=violated & (at.divergence <= delta),
        threshold=threshold.masked_fill(~at.mask, 0.0),
    )

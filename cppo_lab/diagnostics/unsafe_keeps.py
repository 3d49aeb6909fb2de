"""Unsafe keeps: tokens that a rule keeps although their update takes the policy further from the rollout policy.

Only where the whole distribution is known. D is the true divergence at a position, over the vocabulary; its change is
either predicted to first order from the token's own policy-gradient step, or measured after an optimizer step that all
tokens of the minibatch share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.divergences import DivergenceInputs, DivergenceSpec, divergence
from cppo_lab.objectives.log_ratios import read_logp
from cppo_lab.objectives.predicted_change import WEIGHTS, change, whole_atoms

TrueDivergence = Literal["tv", "kl"]
DELTAS: dict[TrueDivergence, float] = {"tv": 0.15, "kl": 0.05}
"""The thresholds that DPPO publishes for each divergence (arXiv:2602.04879)."""


@dataclass(frozen=True)
class KeepCounts:
    """Tokens with a nonzero advantage, summed over the states at which a rule was applied.

    over: with D > delta. kept_*: of those that the rule keeps; dropped_*: of those that it drops. *_predicted: whose
    own step raises D to first order; *_measured: whose D is larger after the optimizer step.
    """

    tokens: int = 0
    masked: int = 0
    over: int = 0
    kept_over: int = 0
    kept_over_predicted: int = 0
    kept_over_measured: int = 0
    dropped_over_predicted: int = 0
    dropped_over_measured: int = 0
    kept_predicted: int = 0
    kept_measured: int = 0

    def __add__(self, other: KeepCounts) -> KeepCounts:
        return KeepCounts(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @property
    def shares(self) -> dict[str, float | None]:
        """What the counts say as shares; None of nothing.

        unsafe_keep and needless_drop are of all tokens over the threshold: kept although D rises, and dropped although
        it does not. unsafe_of_kept is of all kept tokens, over the threshold or not.
        """
        kept, dropped_over = self.tokens - self.masked, self.over - self.kept_over
        return {
            "masked": _ratio(self.masked, self.tokens),
            "over": _ratio(self.over, self.tokens),
            "unsafe_keep_predicted": _ratio(self.kept_over_predicted, self.over),
            "unsafe_keep": _ratio(self.kept_over_measured, self.over),
            "needless_drop_predicted": _ratio(dropped_over - self.dropped_over_predicted, self.over),
            "needless_drop": _ratio(dropped_over - self.dropped_over_measured, self.over),
            "unsafe_of_kept_predicted": _ratio(self.kept_predicted, kept),
            "unsafe_of_kept": _ratio(self.kept_measured, kept),
        }


def true_divergence(batch: TokenBatch, kind: TrueDivergence) -> Tensor:
    """D between mu and pi over the vocabulary [B, T]: total variation or KL(mu || pi); needs `full`."""
    mask = batch.response_mask
    logp, rollout_logp = read_logp(batch.logp.detach(), mask), read_logp(batch.rollout_logp, mask)
    spec = DivergenceSpec(kind=f"exact_{kind}")
    found = divergence(spec, logp, rollout_logp, mask, batch.topk, batch.full)
    assert found is not None, "an exact divergence is one"
    return found


def predicted_rise(batch: TokenBatch, kind: TrueDivergence) -> Tensor:
    """bool [B, T]: the token's own policy-gradient step raises D to first order; needs `full`."""
    mask = batch.response_mask
    logp, rollout_logp = read_logp(batch.logp.detach(), mask), read_logp(batch.rollout_logp, mask)
    at = DivergenceInputs(rollout_logp, logp, reverse=False, full=batch.full)
    found = change(WEIGHTS[f"exact_{kind}", False], whole_atoms(at), rollout_logp.exp(), logp.exp())
    return (batch.advantages * found > 0) & mask


def counts_of(masked: Tensor, before: Tensor, after: Tensor, predicted: Tensor, delta: float) -> KeepCounts:
    """The counts of one minibatch: all [N], `masked` and `predicted` bool, D before and after the optimizer step."""
    kept, over, risen = ~masked, before > delta, after > before

    def number(tokens: Tensor) -> int:
        return int(tokens.sum())

    return KeepCounts(
        tokens=masked.numel(),
        masked=number(masked),
        over=number(over),
        kept_over=number(kept & over),
        kept_over_predicted=number(kept & over & predicted),
        kept_over_measured=number(kept & over & risen),
        dropped_over_predicted=number(masked & over & predicted),
        dropped_over_measured=number(masked & over & risen),
        kept_predicted=number(kept & predicted),
        kept_measured=number(kept & risen),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None

"""KL to a frozen reference policy, a penalty that pulls to the anchor, and the entropy bonus, per token."""

from __future__ import annotations

from typing import Annotated, Literal

from cppo_lab.lazy_torch import Tensor
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.log_ratios import log_ratio, read_logp
from cppo_lab.objectives.parameters import Param, fail, join
from cppo_lab.objectives.rules import Rules

kl_estimators = Rules("regulariser.kl_kind")


@kl_estimators.register("k1")
def k1(x: Tensor) -> Tensor:
    """-x."""
    return -x


@kl_estimators.register("k2")
def k2(x: Tensor) -> Tensor:
    """x^2 / 2."""
    return 0.5 * x.square()


@kl_estimators.register("k3")
def k3(x: Tensor) -> Tensor:
    """e^x - 1 - x."""
    return x.expm1() - x


class RegulariserSpec(Coordinate, path="regulariser"):
    """KL to a frozen reference policy (in the loss or in the reward), a penalty on the distance to the anchor, and an
    entropy bonus; each off at 0.

    The anchor's penalty is c (log rho)^2 of each token. It acts on tokens that the trust region drops too, and is then
    the only force on them. It is no KL: its mean under mu is about 2 c KL, to second order, and its gradient estimates
    that of KL(pi || mu) only under samples of pi.
    """

    kl_coefficient: Annotated[float, Param(at_least=0, about="Weight of the KL term.")] = 0.0
    kl_kind: Annotated[str, kl_estimators, Param(about="Its estimator.")] = "k3"
    kl_where: Annotated[Literal["loss", "reward"], Param(about="Where the KL term is added.")] = "loss"
    entropy_coefficient: Annotated[float, Param(at_least=0, about="Weight of the entropy bonus.")] = 0.0
    anchor_coefficient: Annotated[
        float,
        Param(
            at_least=0,
            main_from=0.0,
            tightens=True,
            about="Weight of the squared log-ratio to the anchor.",
        ),
    ] = 0.0
    anchor_tokens: Annotated[
        Literal["all", "kept"],
        Param(about="The tokens it is on: every response token, or as far as the trust region keeps them."),
    ] = "all"

    def check(self, path: str) -> None:
        """Raise ValueError for a key of a penalty that is off."""
        if self.anchor_coefficient == 0 and self.anchor_tokens != "all":
            raise fail(
                join(path, "anchor_tokens"),
                self.anchor_tokens,
                f"must be all while {join(path, 'anchor_coefficient')} is 0",
            )


def kl_estimate(kind: str, logp: Tensor, reference_logp: Tensor) -> Tensor:
    """Estimate of KL(pi || reference) from tokens sampled by pi [B, T], differentiable.

    `kind` names a rule of x = log(reference / pi) (Schulman's k1, k2, k3).
    """
    x, _ = log_ratio(reference_logp, logp)
    estimate: Tensor = kl_estimators[kind].function(x)
    return estimate


def regulariser_loss(
    batch: TokenBatch, logp: Tensor, spec: RegulariserSpec, log_ratios: Tensor, gate: Tensor
) -> Tensor | None:
    """What the regularisers add to the loss of each token [B, T], or None when all are off.

    `log_ratios` [B, T] are log(pi / anchor), clamped, with gradient; `gate` [B, T] is the trust region's. A KL in the
    reward is not added here (see `advantages.token_advantages`). Raises ValueError when the batch lacks what an active
    regulariser reads.
    """
    total = None
    if spec.kl_coefficient > 0 and spec.kl_where == "loss":
        if batch.reference_logp is None:
            raise ValueError("regulariser.kl_coefficient > 0 needs TokenBatch.reference_logp")
        reference = read_logp(batch.reference_logp.detach(), batch.response_mask)
        total = spec.kl_coefficient * kl_estimate(spec.kl_kind, logp, reference)
    if spec.entropy_coefficient > 0:
        if batch.entropy is None:
            raise ValueError("regulariser.entropy_coefficient > 0 needs TokenBatch.entropy")
        entropy = batch.entropy.to(logp.dtype).masked_fill(~batch.response_mask, 0.0)
        bonus = -spec.entropy_coefficient * entropy
        total = bonus if total is None else total + bonus
    if spec.anchor_coefficient > 0:
        penalty = spec.anchor_coefficient * log_ratios.square()
        penalty = penalty * gate if spec.anchor_tokens == "kept" else penalty
        penalty = penalty.masked_fill(~batch.response_mask, 0.0)
        total = penalty if total is None else total + penalty
    return total

"""KL to a frozen reference policy and the entropy bonus, per token."""

from torch import Tensor

from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.coordinates import RegulariserSpec
from cppo_lab.objectives.log_ratios import log_ratio, read_logp


def kl_estimate(kind: str, logp: Tensor, reference_logp: Tensor) -> Tensor:
    """Estimate of KL(pi || reference) from tokens sampled by pi [B, T] (Schulman's k1, k2, k3),
    differentiable.

    k1 = -x, k2 = x^2 / 2, k3 = e^x - 1 - x with x = log(reference / pi).
    """
    x, _ = log_ratio(reference_logp, logp)
    if kind == "k1":
        return -x
    if kind == "k2":
        return 0.5 * x.square()
    return x.expm1() - x


def regulariser_loss(batch: TokenBatch, logp: Tensor, spec: RegulariserSpec) -> Tensor | None:
    """What the regularisers add to the loss of each token [B, T], or None when both are off.

    A KL in the reward is not added here (see `advantages.token_advantages`). Raises ValueError when the batch
    lacks what an active regulariser reads.
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
    return total

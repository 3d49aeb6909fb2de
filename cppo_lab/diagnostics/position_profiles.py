"""Position profiles: divergence, masking and threshold against the position in the response (CPPO Fig. 2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.log_ratios import read_logp
from cppo_lab.objectives.objective import TokenObjective
from cppo_lab.objectives.prefixes import positions

RELATIVE_BINS = 20


@dataclass(frozen=True)
class PositionProfile:
    """One number per bin; NaN where a bin is empty or the method has no such quantity."""

    kind: str
    """"relative": edges in [0, 1] of the response's length; "absolute": edges in tokens."""
    edges: list[float]
    """Bin i holds positions in [edges[i], edges[i + 1]); one more entry than bins."""
    count: list[int]
    divergence_mean: list[float]
    divergence_top_decile: list[float]
    """Mean of D_t over the tokens of the bin at or above its 0.9 quantile."""
    masked_share: list[float]
    threshold_mean: list[float]
    """Mean of c_t."""
    induced_threshold_mean: list[float]
    """Mean of c_t / w_t: what D_t itself may be."""
    mismatch_mean: list[float]
    """Mean of |log pi_old - log mu|: how far trainer and sampler are apart before any update."""


class PositionProfiler:
    """Collects the tokens of one training step and bins them; keeps seven float32 per token.

    D_t is the method's divergence, or |pi - mu| of the sampled token for a method without one.
    """

    def __init__(self) -> None:
        self._tokens: list[Tensor] = []

    @torch.no_grad()
    def update(self, batch: TokenBatch, objective: TokenObjective) -> None:
        """Add one micro-batch."""
        mask = batch.response_mask
        distance = objective.divergence
        if distance is None:
            logp, rollout_logp = read_logp(batch.logp.detach(), mask), read_logp(batch.rollout_logp, mask)
            distance = (logp.exp() - rollout_logp.exp()).abs()
        position = positions(mask)
        share = (position - 1) / mask.sum(-1, keepdim=True).clamp(min=1)
        threshold = objective.threshold
        if threshold is None:
            threshold = torch.full_like(distance, torch.nan)
        weights = objective.weights
        induced = threshold if weights is None else threshold / weights
        mismatch = torch.full_like(distance, torch.nan)
        if batch.old_logp is not None:
            mismatch = (read_logp(batch.old_logp, mask) - read_logp(batch.rollout_logp, mask)).abs()
        columns = (share, position, distance, objective.masked, threshold, induced, mismatch)
        self._tokens.append(torch.stack([column.float()[mask] for column in columns]).cpu())

    def relative(self, bins: int = RELATIVE_BINS) -> PositionProfile:
        """Over bins of equal width in the share of the response already made, (t - 1) / T."""
        edges = [index / bins for index in range(bins + 1)]
        return self._profile("relative", 0, edges)

    def absolute(self, edges: Sequence[int] | None = None) -> PositionProfile:
        """Over positions counted from 1; without `edges`, powers of two up to the longest response."""
        if edges is None:
            longest = max((int(tokens[1].max()) for tokens in self._tokens if tokens.numel()), default=1)
            edges = [1 << power for power in range(longest.bit_length() + 1)]
        return self._profile("absolute", 1, [float(edge) for edge in edges])

    def _profile(self, kind: str, axis: int, edges: list[float]) -> PositionProfile:
        tokens = torch.cat(self._tokens, -1) if self._tokens else torch.empty(7, 0)
        inner = torch.tensor(edges[1:-1], dtype=torch.float32)
        index = torch.bucketize(tokens[axis], inner, right=True)
        bins = len(edges) - 1
        chosen = [tokens[:, index == bin_index] for bin_index in range(bins)]
        return PositionProfile(
            kind=kind,
            edges=edges,
            count=[part.shape[1] for part in chosen],
            divergence_mean=[float(part[2].mean()) for part in chosen],
            divergence_top_decile=[_top_decile(part[2]) for part in chosen],
            masked_share=[float(part[3].mean()) for part in chosen],
            threshold_mean=[float(part[4].mean()) for part in chosen],
            induced_threshold_mean=[float(part[5].mean()) for part in chosen],
            mismatch_mean=[float(part[6].mean()) for part in chosen],
        )


def _top_decile(values: Tensor) -> float:
    if values.numel() == 0:
        return float("nan")
    number = max(1, values.numel() // 10)
    return float(values.topk(number).values.mean())

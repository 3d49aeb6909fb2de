"""How far the policy has moved from an anchor, estimated from the log-ratios of the sampled tokens."""

import math

import torch
from torch import Tensor

from cppo_lab.diagnostics.sums import Sums, quantile
from cppo_lab.objectives.log_ratios import log_ratio

_MAX_SEQUENCE_LOG_RATIO = 20.0
"""Products over a sequence are clamped like single ratios, so that one response cannot overflow a sum."""


class Drift:
    """Accumulates k1, k2, k3, TV, ratios, chi-squared and effective sample sizes against one anchor.

    Keeps one float32 per token for the quantiles; everything else is a sum.
    """

    def __init__(self, anchor: str) -> None:
        self.anchor = anchor
        self._sums = Sums()
        self._ratios: list[Tensor] = []

    def update(self, logp: Tensor, anchor_logp: Tensor, mask: Tensor) -> None:
        """Add one micro-batch: log-probabilities [B, T] as `read_logp` returns them, and a bool mask [B, T]."""
        sums = self._sums
        difference = log_ratio(logp, anchor_logp)[0].masked_fill(~mask, 0.0)
        token = difference[mask]
        ratio = token.exp()
        sums.add("tokens", mask)
        sums.add("k1", -token)
        sums.add("k2", 0.5 * token.square())
        sums.add("k3", token.expm1() - token)
        sums.add("tv", (logp.exp() - anchor_logp.exp()).abs()[mask])
        sums.add("ratio", ratio)
        sums.add("ratio squared", ratio.double().square())
        sums.extend("ratio", ratio)
        rows = mask.any(-1)
        summed = difference.double().sum(-1)[rows]
        product = summed.clamp(-_MAX_SEQUENCE_LOG_RATIO, _MAX_SEQUENCE_LOG_RATIO).exp()
        sums.add("rows", rows)
        sums.add("product", product)
        sums.add("product squared", product.square())
        self._ratios.append(ratio.float())

    def result(self) -> dict[str, float]:
        """The metrics so far, each with the anchor at the end of its name; NaN before the first token."""
        sums = self._sums
        smallest, largest = sums.range("ratio")
        ratios = torch.cat(self._ratios) if self._ratios else torch.empty(0)
        found = {name: sums.ratio(name, "tokens") for name in ("k1", "k2", "k3", "tv")}
        found |= {
            "ratio_mean": sums.ratio("ratio", "tokens"),
            "ratio_max": largest,
            "ratio_min": smallest,
            "ratio_p01": quantile(ratios, 0.01),
            "ratio_p50": quantile(ratios, 0.5),
            "ratio_p99": quantile(ratios, 0.99),
            "chi2": sums.ratio("ratio squared", "tokens") - 1,
            "chi2_sequence": sums.ratio("product squared", "rows") - 1,
            "ess_token": _effective_share(sums, "ratio", "tokens"),
            "ess_sequence": _effective_share(sums, "product", "rows"),
        }
        return {f"policy/{name}_vs_{self.anchor}": value for name, value in found.items()}


def _effective_share(sums: Sums, name: str, over: str) -> float:
    """(sum w)^2 / (N sum w^2), the effective sample size as a share of N."""
    below = sums.total(over) * sums.total(f"{name} squared")
    return sums.total(name) ** 2 / below if below else math.nan

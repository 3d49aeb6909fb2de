"""Corrections for the mismatch between trainer and sampler: a detached factor of k = pi_old / mu.

TIS: Yao et al. 2025. IcePop: arXiv 2510.18855. MIS and geometric rejection: Liu et al. 2025. OPSM:
DeepSeek-V3.2. Never used with a ratio that is anchored at the rollout policy, which already holds k.
"""

import torch
from torch import Tensor

from cppo_lab.objectives.coordinates import CorrectionSpec
from cppo_lab.objectives.log_ratios import MAX_LOG_RATIO, log_ratio
from cppo_lab.objectives.prefixes import row_mean


@torch.no_grad()
def correction_factor(
    logp: Tensor,
    old_logp: Tensor,
    rollout_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    spec: CorrectionSpec,
) -> Tensor:
    """The factor on the token loss [B, T], 0 outside the mask; log-probabilities have been read.

    Rejections set the factor to 0 and leave the denominators alone. opsm is the one rule that looks at the
    current policy: it drops tokens with A < 0 of responses whose mean log(mu / pi) exceeds `high`.
    """
    log_k, _ = log_ratio(old_logp, rollout_logp)
    log_k = log_k.masked_fill(~mask, 0.0)
    sequence_k = log_k.sum(-1, keepdim=True).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    k = log_k.exp()
    if spec.kind == "token_tis":
        factor = k.clamp(max=spec.high)
    elif spec.kind == "sequence_tis":
        factor = sequence_k.clamp(max=spec.high)
    elif spec.kind == "icepop":
        factor = torch.where((k >= spec.low) & (k <= spec.high), k, 0.0)
    elif spec.kind == "mis":
        factor = torch.where(sequence_k <= spec.high, sequence_k, 0.0)
    elif spec.kind == "geometric":
        mean_k = row_mean(log_k, mask).unsqueeze(-1).exp()
        factor = ((mean_k >= spec.low) & (mean_k <= spec.high)).to(k.dtype)
    elif spec.kind == "k3":
        mean_k3 = row_mean(torch.expm1(log_k) - log_k, mask).unsqueeze(-1)
        factor = (mean_k3 <= spec.high).to(k.dtype)
    elif spec.kind == "opsm":
        drift = row_mean(log_ratio(rollout_logp, logp)[0].masked_fill(~mask, 0.0), mask).unsqueeze(-1)
        factor = (~((advantages < 0) & (drift > spec.high))).to(k.dtype)
    else:
        factor = torch.ones_like(k)
    return factor.expand_as(k) * mask

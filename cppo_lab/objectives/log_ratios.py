"""Reading log-probabilities safely, and the log-ratio every rule starts from."""

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.batch import ZERO_LOGP

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-20 before `exp` (verl, UniRL); e^20 squared still fits float32."""


def read_logp(values: Tensor, mask: Tensor) -> Tensor:
    """`values` [B, T] in float32 at least, 0 outside `mask`, minus infinity as ZERO_LOGP.

    The gradient is zero where a value was replaced, so that padding may hold anything.
    """
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    inside = wide.masked_fill(~mask, 0.0)
    return inside.masked_fill(inside == -torch.inf, ZERO_LOGP)


def log_ratio(logp: Tensor, anchor_logp: Tensor) -> tuple[Tensor, Tensor]:
    """log(pi / anchor) [B, T] clamped to +-MAX_LOG_RATIO, and where the clamp was hit (bool [B, T]).

    A token that both policies call impossible has log-ratio 0. Past the clamp the gradient is zero.
    """
    raw = logp - anchor_logp
    return raw.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO), raw.detach().abs() > MAX_LOG_RATIO


def moves_away(advantages: Tensor, log_ratios: Tensor) -> Tensor:
    """Tokens whose update increases the distance to the anchor: A (rho - 1) > 0; bool [B, T].

    The sign of log rho is used, which is exact where rho - 1 rounds to zero. A = 0 and rho = 1 count as
    moving toward the anchor.
    """
    return ((advantages > 0) & (log_ratios > 0)) | ((advantages < 0) & (log_ratios < 0))

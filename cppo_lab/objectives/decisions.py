"""What a trust region decides: the gate on each token, what it rests on, and the window of a ratio clip."""

from __future__ import annotations

from dataclasses import dataclass

from cppo_lab.lazy_torch import Tensor


@dataclass(frozen=True)
class ClipWindow:
    """Bounds of the importance ratio, each a float or a tensor [B, T]."""

    low: Tensor | float
    high: Tensor | float
    dual: Tensor | float | None
    keep: Tensor | None = None
    """[B, T] bool: tokens whose loss counts at all; None: all of them."""

    def cuts(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        """Where PPO's clipped minimum has no gradient, bool [B, T]; equality keeps."""
        rises, falls = advantages > 0, advantages < 0
        cut = (rises & (ratio > self.high)) | (falls & (ratio < self.low))
        return cut if self.dual is None else cut | (falls & (ratio > self.dual))


@dataclass(frozen=True)
class Decision:
    """What a trust region decided, detached; tensors that a rule does not have are None."""

    gate: Tensor
    """[B, T] factor on the gradient: 1 keeps, 0 drops; 0 outside the mask."""
    by_threshold: Tensor
    """[B, T] bool: gate below 1 because the token (or its response) breaks the token-level threshold."""
    by_budget: Tensor
    """[B, T] bool: gate below 1 because of the prefix budget alone."""
    threshold: Tensor | None = None
    """[B, T] the threshold c_t in force on w_t D_t; may be negative under a prefix budget."""
    prefix_threshold: Tensor | None = None
    """[B, T] what the prefix leaves, allowance_t - S_{t-1}: c_t before its cap at delta; None without a budget."""
    weights: Tensor | None = None
    """[B, T] w_t."""
    prefix_cost: Tensor | None = None
    """[B, T] S_t, inclusive; constant across holes and padding."""
    prefix_weight: Tensor | None = None
    """[B, T] W_t, inclusive; constant across holes and padding."""
    budget: Tensor | None = None
    """[B] delta_b in force."""
    budget_range: tuple[float, float] | None = None
    """The least and the most that `budget` can be, for a budget chosen per response."""
    violation: Tensor | None = None
    """[B, T] the score x_t of Eq. 19, at most 1 where the hard rule keeps a token; None under the hard gate."""
    subject: Tensor | None = None
    """[B, T] bool: the tokens that may be dropped, where these are not just those that move away."""
    predicted_change: Tensor | None = None
    """[B, T] the derivative of D along the token's own update; None where none is predicted."""
    window: ClipWindow | None = None
    """Bounds of the ratio, from a region that provides clip_window."""

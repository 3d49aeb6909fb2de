"""Surrogates: the token loss -A * (importance of the token), un-aggregated, and the ratios they are built on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.decisions import ClipWindow
from cppo_lab.objectives.log_ratios import MAX_LOG_RATIO
from cppo_lab.objectives.parameters import Param, fail, join
from cppo_lab.objectives.prefixes import row_mean
from cppo_lab.objectives.ratios import ratios
from cppo_lab.objectives.rules import Rules

REINFORCE = "doi:10.1007/BF00992696"


@dataclass(frozen=True)
class SurrogateInputs:
    """What a surrogate may read, all [B, T]; `logp`, `log_ratios` and `ratio` carry gradient."""

    logp: Tensor
    anchor_logp: Tensor
    log_ratios: Tensor
    """log(pi / anchor) of each token."""
    ratio: Tensor
    """The importance ratio of `importance_ratio`."""
    advantages: Tensor
    mask: Tensor
    gate: Tensor
    """The trust region's factor on the gradient."""
    window: ClipWindow | None
    """Bounds of the ratio, for surrogates that need clip_window."""

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The window's bounds as tensors."""
        assert self.window is not None, "a surrogate that needs clip_window is given it"
        low, high = (
            torch.as_tensor(bound, dtype=self.ratio.dtype, device=self.ratio.device)
            for bound in (self.window.low, self.window.high)
        )
        return low, high


@dataclass(frozen=True)
class WeightedLoss:
    """A token loss whose detached weight on log pi is worth watching; both [B, T]."""

    loss: Tensor
    weight: Tensor


surrogates = Rules("surrogate.kind")
"""A rule returns the loss of each token [B, T], or a `WeightedLoss`."""


@surrogates.register("ratio", paper="arXiv:2602.04879", needs=["ratio"])
def ratio_loss(at: SurrogateInputs) -> Tensor:
    """-A rho."""
    return -at.advantages * at.gate * at.ratio


def _check_hard(algo: Coordinate) -> None:
    region, surrogate = algo.trust_region, algo.surrogate.kind
    if region.gate != "hard":
        rule = f"surrogate.kind {surrogate} needs the hard gate: it has no gradient beyond the window"
        raise fail("trust_region.gate", region.gate, rule)


@surrogates.register("clipped", paper="arXiv:1707.06347", needs=["ratio", "clip_window"], check=_check_hard)
def clipped_loss(at: SurrogateInputs) -> Tensor:
    """-min(A rho, A clip(rho)).

    Keeps its constant clipped value where the gradient is cut.
    """
    low, high = at.bounds()
    advantages, ratio = at.advantages, at.ratio
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(low, high))
    window = at.window
    if window is not None and window.dual is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * window.dual), loss)
    return loss if window is None or window.keep is None else loss.masked_fill(~window.keep, 0.0)


def _check_truncated(algo: Coordinate) -> None:
    spec = algo.surrogate
    low = spec.ratio_low if spec.negative_low is None else spec.negative_low
    high = spec.ratio_high if spec.negative_high is None else spec.negative_high
    if high < low:
        key = "negative_low" if spec.negative_high is None else "negative_high"
        bound = f"at most {high:g}" if key == "negative_low" else f"at least {low:g}"
        raise fail(f"surrogate.{key}", getattr(spec, key), f"must be {bound}, the other bound where A < 0")


@surrogates.register("truncated", paper="arXiv:2506.13585", needs=["ratio"], check=_check_truncated)
def truncated_loss(
    at: SurrogateInputs,
    *,
    ratio_low: Annotated[
        float,
        Param(at_least=0, refuse_unread=True, always_shown=True, main_from=1.0, about="Least weight."),
    ] = 0.0,
    ratio_high: Annotated[
        float,
        Param(
            at_least="ratio_low",
            infinite=True,
            refuse_unread=True,
            always_shown=True,
            main_from=1.0,
            about="Largest weight.",
        ),
    ] = float("inf"),
    negative_low: Annotated[
        float | None, Param(at_least=0, refuse_unread=True, about="Least weight where A < 0; null: the same.")
    ] = None,
    negative_high: Annotated[
        float | None,
        Param(
            at_least=0, infinite=True, refuse_unread=True, about="Largest weight where A < 0; null: the same."
        ),
    ] = None,
) -> Tensor:
    """-sg[clamp(rho, ratio_low, ratio_high)] A log pi; the bounds are absolute (CISPO).

    A detached weight, gated. A token beyond the bounds keeps a gradient of bounded size.
    """
    ratio = at.ratio.detach()
    weight = ratio.clamp(ratio_low, ratio_high)
    if negative_low is not None or negative_high is not None:
        low = ratio_low if negative_low is None else negative_low
        high = ratio_high if negative_high is None else negative_high
        weight = torch.where(at.advantages < 0, ratio.clamp(low, high), weight)
    return -at.advantages * at.gate * weight * at.logp


_LEAST_PRODUCT = math.log(1e-8)


@surrogates.register("gamma", paper="arXiv:2602.10693", needs=["ratio"])
def gamma_loss(
    at: SurrogateInputs,
    *,
    k_positive: Annotated[float, Param(at_least=0, about="k where A >= 0.")] = 2.0,
    lambda_positive: Annotated[float, Param(at_least=1e-4, about="lambda where A >= 0.")] = 3.0,
    k_negative: Annotated[float, Param(at_least=0, about="k where A < 0.")] = 3.0,
    lambda_negative: Annotated[float, Param(at_least=1e-4, about="lambda where A < 0.")] = 2.0,
) -> WeightedLoss:
    """-sg[phi(rho)] A log pi with phi(w) = w^k exp(lambda (1 - w)), largest at k / lambda (VESPO).

    log w is clamped to [log 1e-8, 20], as in the authors' code.
    """
    log_w = at.ratio.detach().log().clamp(min=_LEAST_PRODUCT)
    negative = at.advantages < 0
    k = torch.where(negative, k_negative, k_positive).to(log_w)
    rate = torch.where(negative, lambda_negative, lambda_positive).to(log_w)
    weight = (rate + k * log_w - rate * log_w.exp()).exp()
    return WeightedLoss(-at.advantages * at.gate * weight * at.logp, weight)


@surrogates.register("bound_distance", paper="arXiv:2604.18578", needs=["ratio", "clip_window"])
def bound_distance_loss(at: SurrogateInputs) -> Tensor:
    """A (b - rho), b the window's upper bound where A > 0 and its lower one where A < 0 (BPO).

    Under the gate `reflect` this is |A| |rho - b|; under `hard`, PPO's gradient.
    """
    low, high = at.bounds()
    return at.gate * at.advantages * (torch.where(at.advantages > 0, high, low) - at.ratio)


@surrogates.register("log_probability", paper=REINFORCE)
def log_probability_loss(at: SurrogateInputs) -> Tensor:
    """-A log pi (REINFORCE)."""
    return -at.advantages * at.gate * at.logp


def _check_geometric(algo: Coordinate) -> None:
    _check_hard(algo)
    region = algo.trust_region
    if region.clip_space != "log" or region.dual_clip is not None:
        raise fail("surrogate.kind", "geometric", "needs trust_region.clip_space log and no dual_clip")
    if region.kind != "ratio_clip":
        raise fail("surrogate.kind", "geometric", "needs trust_region.kind ratio_clip")


@surrogates.register("geometric", paper="arXiv:2507.20673", needs=["clip_window"], check=_check_geometric)
def geometric_loss(at: SurrogateInputs) -> Tensor:
    """-A exp(mean of one-sidedly clipped log-ratios) (GMPO).

    Each token holds the value of its response, and the gradient of its own x_t.
    """
    low, high = (bound.log() for bound in at.bounds())
    sign = at.advantages.sign()
    clipped = at.log_ratios.clamp(low, high)
    one_sided = sign * torch.minimum(sign * at.log_ratios, sign * clipped)
    one_sided = one_sided.masked_fill(~at.mask, 0.0)
    value = row_mean(one_sided.detach(), at.mask).unsqueeze(-1)
    return -at.advantages * (value + one_sided - one_sided.detach()).exp()


@surrogates.register("sapo", paper="arXiv:2511.20347")
def sapo_loss(
    at: SurrogateInputs,
    *,
    tau_positive: Annotated[
        float, Param(above=0, main_from=0.0, tightens=True, about="Temperature where A > 0.")
    ] = 1.0,
    tau_negative: Annotated[
        float, Param(above=0, main_from=0.0, tightens=True, about="Temperature elsewhere.")
    ] = 1.05,
) -> Tensor:
    """-A (4/tau) sigmoid(tau (rho - 1)) (SAPO)."""
    positive = torch.full_like(at.ratio, tau_positive)
    temperature = positive.masked_fill(at.advantages <= 0, tau_negative)
    soft = torch.sigmoid(temperature * (at.ratio - 1)) * 4 / temperature
    return -at.advantages * at.gate * soft


@surrogates.register("quadratic", paper="arXiv:2606.09821")
def quadratic_loss(
    at: SurrogateInputs,
    *,
    penalty_epsilon: Annotated[
        float, Param(above=0, always_shown=True, main_from=0.0, about="Inverse strength.")
    ] = 12.5,
    penalty_scale: Annotated[
        Literal["anchor_probability", "one"], Param(about="c: mu(a), or 1.")
    ] = "anchor_probability",
) -> Tensor:
    """-A rho + |A| c (rho - 1)^2 / (2 penalty_epsilon), c = mu(a) (DRPO) or 1 (SPO)."""
    penalty = at.advantages.abs() * (at.ratio - 1).square() / (2 * penalty_epsilon)
    if penalty_scale == "anchor_probability":
        penalty = penalty * at.anchor_logp.exp()
    return at.gate * (-at.advantages * at.ratio + penalty)


class SurrogateSpec(Coordinate, path="surrogate"):
    """What is optimised inside the trust region. Gradient flows through a token's own log-probability only."""

    kind: Annotated[str, surrogates] = "ratio"
    ratio: Annotated[str, ratios, Param(about="Which importance ratio.")] = "token"

    def check(self, path: str) -> None:
        """Raise ValueError for a ratio that the surrogate does not read."""
        if self.ratio != "token" and "ratio" not in surrogates[self.kind].needs:
            raise fail(
                join(path, "ratio"), self.ratio, f"{join(path, 'kind')} {self.kind} uses the token ratio only"
            )


def importance_ratio(log_ratios: Tensor, mask: Tensor, spec: SurrogateSpec) -> Tensor:
    """The ratio of `spec.ratio` [B, T], 1 outside the mask; gradient through the token's own log-ratio only.

    Logarithms of the result are clamped to +-MAX_LOG_RATIO.
    """
    own = log_ratios.masked_fill(~mask, 0.0)
    context: Tensor = spec.rule("ratio")(own.detach(), mask)
    return (own + context).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def surrogate_loss(inputs: SurrogateInputs, spec: SurrogateSpec) -> tuple[Tensor, Tensor | None]:
    """The loss of each token [B, T] to minimise, and its detached weight where the rule has one to watch.

    Both may be anything outside the mask.
    """
    found: Tensor | WeightedLoss = spec.rule()(inputs)
    return (found.loss, found.weight) if isinstance(found, WeightedLoss) else (found, None)

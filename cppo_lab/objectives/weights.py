"""Position weights w_t in (0, 1] (CPPO Eq. 9 and alternatives), and whether Theorem 1 admits them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.prefixes import positions
from cppo_lab.objectives.rules import Rules

CPPO = "arXiv:2606.10968"
Floor = Annotated[
    float, Param(default=0.8, above=0, at_most=1, always_shown=True, about="The lowest weight, w_min.")
]


@dataclass(frozen=True)
class WeightInputs:
    """Where each token stands in its response; response tokens alone are counted."""

    position: Tensor
    """[B, T] from 1; 0 outside the mask. For a rule that needs weight_order, the place in that order."""
    horizon: Tensor
    """[B, 1] T: the response's own length, or the fixed horizon."""
    dtype: torch.dtype

    @property
    def fraction(self) -> Tensor:
        """[B, T] u = (t-1)/(T-1) in [0, 1], the fraction of the response already made; 0 for a single token."""
        return self.position.to(self.dtype).sub_(1).div_(self._steps).clamp_(0, 1)

    @property
    def remaining(self) -> Tensor:
        """[B, T] (T-t)/(T-1) in [0, 1], the fraction still to come; 0 for a single token."""
        return (self.horizon.to(self.dtype) - self.position).div_(self._steps).clamp_(0, 1)

    @property
    def is_single(self) -> Tensor:
        """[B, T] bool: the only token of its horizon."""
        return (self.horizon == 1) & (self.position == 1)

    @property
    def _steps(self) -> Tensor:
        return (self.horizon - 1).clamp(min=1).to(self.dtype)


weights = Rules("trust_region.weights.kind")


@weights.register("uniform", admitted=lambda _: True)
def uniform(at: WeightInputs) -> Tensor:
    """1."""
    return torch.ones_like(at.fraction)


# The derivative of (1 - u) / (1 - (1 - w_min) u) is -w_min / (1 - (1 - w_min) u)^2.
@weights.register("linear", paper=CPPO, admitted=lambda _: True)
def linear(at: WeightInputs, *, w_min: Floor) -> Tensor:
    """1 - (1 - w_min) u (Eq. 9)."""
    return (at.fraction * (w_min - 1)).add_(1)


@weights.register(
    "shuffled", paper=CPPO, needs=["weight_order"], admitted=lambda spec: 1 in (spec.w_min, spec.horizon)
)
def shuffled(at: WeightInputs, *, w_min: Floor) -> Tensor:
    """The linear weights, in an order drawn once per rollout."""
    return (at.fraction * (w_min - 1)).add_(1)


@weights.register("reversed")
def from_the_end(at: WeightInputs, *, w_min: Floor) -> Tensor:
    """w_min + (1 - w_min) u."""
    return (at.remaining * (w_min - 1)).add_(1)


@weights.register("cosine")
def cosine(at: WeightInputs, *, w_min: Floor) -> Tensor:
    """w_min + (1 - w_min)(1 + cos(pi u))/2."""
    return w_min + (1 - w_min) * (1 + torch.cos(math.pi * at.fraction)) / 2


@weights.register("exponential")
def exponential(at: WeightInputs, *, w_min: Floor) -> Tensor:
    """w_min^u."""
    return torch.exp(math.log(w_min) * at.fraction)


@weights.register("step")
def step(
    at: WeightInputs,
    *,
    w_min: Floor,
    step_at: Annotated[
        float, Param(at_least=0, at_most=1, about="Where the step is, as a value of u.")
    ] = 0.5,
) -> Tensor:
    """1, then w_min from `step_at` on."""
    made = at.fraction
    return torch.ones_like(made).masked_fill(made >= step_at, w_min)


@weights.register("remaining_horizon", paper=CPPO)
def remaining_horizon(at: WeightInputs, *, w_min: Floor) -> Tensor:
    """max(w_min, (T-t)/(T-1)), proportional to lambda_t of Eq. 4."""
    # A single token has no remaining horizon to be proportional to; every schedule gives it weight 1.
    return at.remaining.clamp(min=w_min).masked_fill(at.is_single, 1.0)


class WeightSpec(Coordinate, path="trust_region.weights"):
    """Position weights w_t in (0, 1], functions of the fraction u = (t-1)/(T-1) of the response already made."""

    kind: Annotated[str, weights] = "uniform"
    horizon: Annotated[
        int | Literal["own"],
        Param(
            at_least=1, about="T: the response's own number of tokens, or a fixed one (w_min past its end)."
        ),
    ] = "own"


def position_weights(
    mask: Tensor, spec: WeightSpec, order: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """w_t [B, T], 0 outside the mask; positions count response tokens only, so padding and holes are inert.

    `order` [B, T] holds the sort keys of shuffled weights: the token with the k-th smallest key of its row
    gets the weight of position k. Raises ValueError when a rule that needs them comes without.
    """
    position = positions(mask)
    if _needs_order(spec):
        if order is None:
            raise ValueError(
                f"trust_region.weights.kind {spec.kind} needs sort keys drawn once per rollout, "
                "TokenBatch.weight_order"
            )
        keys = order.to(torch.float64).masked_fill(~mask, torch.inf)
        position = (keys.argsort(dim=-1, stable=True).argsort(dim=-1) + 1) * mask
    lengths = mask.sum(-1, keepdim=True)
    horizon = lengths if spec.horizon == "own" else torch.full_like(lengths, spec.horizon)
    found: Tensor = spec.rule()(WeightInputs(position, horizon, dtype or torch.float32))
    return found.masked_fill(~mask, 0.0)


_PROBED_LENGTHS = (2, 3, 5, 17, 128, 1024)


def theorem_one_admits(spec: WeightSpec) -> bool:
    """Whether (T - t) / w_t never increases along a response, the condition of CPPO's Theorem 1.

    As their rule says, or else evaluated for responses of several lengths up to 1024 tokens (up to the horizon, when
    that is fixed). Weights in a drawn order are admitted only when they are all equal.
    """
    says = spec.selected()["kind"].admitted
    return evaluated_to_be_admitted(spec) if says is None else says(spec)


def evaluated_to_be_admitted(spec: WeightSpec) -> bool:
    """`theorem_one_admits` by evaluation, whatever the rule says."""
    horizon = _PROBED_LENGTHS[-1] if spec.horizon == "own" else spec.horizon
    lengths = {length for length in (*_PROBED_LENGTHS, horizon) if length <= horizon}
    return all(_admitted_at(spec, length) for length in lengths)


def _admitted_at(spec: WeightSpec, length: int) -> bool:
    mask = torch.ones(1, length, dtype=torch.bool)
    order = torch.arange(length).expand(1, length) if _needs_order(spec) else None
    found = position_weights(mask, spec, order, torch.float64)[0]
    if order is not None:
        return bool((found == found[0]).all())
    ratio = torch.arange(length - 1, -1, -1, dtype=torch.float64) / found
    return bool((ratio[1:] <= ratio[:-1] * (1 + 1e-12)).all())


def _needs_order(spec: WeightSpec) -> bool:
    return "weight_order" in weights[spec.kind].needs

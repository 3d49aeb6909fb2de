"""Prefix budgets of CPPO (arXiv 2606.10968): the allowance that the tokens before t leave to token t."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.coordinate import OFF, Coordinate
from cppo_lab.objectives.parameters import Param, fail, join
from cppo_lab.objectives.prefixes import positions, row_quantile, shift_right
from cppo_lab.objectives.rules import Rules
from cppo_lab.objectives.schedules import ScheduleSpec

CPPO = "arXiv:2606.10968"
Slack = Annotated[
    Literal["threshold", "none"],
    Param(
        default="threshold", about="threshold: delta + delta_b W_{t-1}, Eq. 8. none: the strict form, Eq. 5."
    ),
]


@dataclass(frozen=True)
class BudgetInputs:
    """What a budget may read, all [B, T] unless said otherwise."""

    divergence: Tensor
    """D_t."""
    cost: Tensor
    """w_t D_t."""
    prefix_cost: Tensor
    """S_t, the sum of costs up to and including t."""
    prefix_weight: Tensor
    """W_t, the sum of weights up to and including t."""
    mask: Tensor
    size: float
    """delta_b in force at this training step."""
    delta: float
    """The token-level threshold in force."""

    @property
    def is_last(self) -> Tensor:
        """bool: the last response token of its row."""
        return self.mask & (positions(self.mask) == self.mask.sum(-1, keepdim=True))


@dataclass(frozen=True)
class Allowance:
    """What a budget allows and what counts against it. Token t is inside while charged_before + its cost <= allowed."""

    allowed: Tensor
    """[B, T] what the prefix up to and including t may cost."""
    charged: Tensor
    """[B, T] what it has cost."""
    charged_before: Tensor
    """[B, T] the same without token t's own cost."""
    budget: Tensor
    """[B] delta_b of each response."""
    range: tuple[float, float] | None = None
    """The least and the most that `budget` can be, for a rule that chooses it per response."""


budgets = Rules("trust_region.budget.kind")


@budgets.register(OFF)
def no_budget(at: BudgetInputs) -> Allowance:
    """No budget: the token-level threshold alone."""
    unlimited = torch.full_like(at.prefix_weight, torch.inf)
    nothing = torch.zeros_like(at.divergence[:, 0])
    return Allowance(unlimited, at.prefix_cost, shift_right(at.prefix_cost), nothing)


@budgets.register("fixed", paper=CPPO)
def fixed(at: BudgetInputs, *, slack: Slack) -> Allowance:
    """delta_b = `size`."""
    return _prefix_allowance(at, _floor(at), slack)


@budgets.register("adaptive", paper=CPPO)
def adaptive(
    at: BudgetInputs,
    *,
    slack: Slack,
    quantile: Annotated[
        float, Param(at_least=0, at_most=1, about="Which quantile of the unweighted D.")
    ] = 0.9,
    multiple: Annotated[float, Param(at_least=0, about="Factor on the quantile.")] = 1.0,
    ceiling: Annotated[float, Param(at_least=1, about="The largest budget, as a multiple of `size`.")] = 2.0,
) -> Allowance:
    """delta_b = min(ceiling * size, max(size, multiple * quantile of the response's D)) (Eq. 22)."""
    floor = _floor(at)
    typical = multiple * row_quantile(at.divergence, at.mask, quantile)
    budget = torch.minimum(ceiling * floor, torch.maximum(floor, typical))
    return _prefix_allowance(at, budget, slack, (at.size, at.size * ceiling))


@budgets.register("terminal")
def terminal(at: BudgetInputs) -> Allowance:
    """delta_b = `size`, tested once at the end of the response, for all of its tokens alike."""
    budget = _floor(at)
    before = (shift_right(at.prefix_weight) * at.is_last).sum(-1, keepdim=True).expand_as(at.cost)
    charged = at.prefix_cost[:, -1:].expand_as(at.cost)
    return Allowance((_rate(budget) * before).add_(at.delta), charged, charged - at.cost, budget)


def _floor(at: BudgetInputs) -> Tensor:
    return torch.full(
        at.divergence.shape[:1], at.size, dtype=at.divergence.dtype, device=at.divergence.device
    )


def _rate(budget: Tensor) -> Tensor:
    # The largest finite number allows a prefix of weight zero nothing, where infinity times zero would be NaN.
    return budget.clamp(max=torch.finfo(budget.dtype).max).unsqueeze(-1)


def _prefix_allowance(
    at: BudgetInputs, budget: Tensor, slack: str, range: tuple[float, float] | None = None
) -> Allowance:
    """slack threshold (Eq. 8): delta + delta_b W_{t-1}. none (Eq. 5): delta_b W_t, no limit at the last token."""
    if slack == "none":
        # The last token has no suffix whose states it could change.
        allowed = (_rate(budget) * at.prefix_weight).masked_fill(at.is_last, torch.inf)
    else:
        allowed = (_rate(budget) * shift_right(at.prefix_weight)).add_(at.delta)
    return Allowance(allowed, at.prefix_cost, shift_right(at.prefix_cost), budget, range)


class BudgetSpec(Coordinate, path="trust_region.budget"):
    """The allowance delta_b per unit of position weight that a prefix may spend (Eq. 5, 8, 22)."""

    kind: Annotated[str, budgets] = OFF
    size: Annotated[
        float,
        Param(
            at_least=0,
            infinite=True,
            always_shown=True,
            about="delta_b in units of the divergence, or as a multiple of delta when `relative`.",
        ),
    ] = 0.02
    relative: Annotated[bool, Param(about="Read `size` as a multiple of delta.")] = False
    schedule: Annotated[ScheduleSpec, Param(about="Of `size`.")] = ScheduleSpec()

    def check(self, path: str) -> None:
        """Raise ValueError for a schedule of no budget, and for a strict form that the kind does not have."""
        if self.is_off and self.schedule.kind != "constant":
            raise fail(join(path, "schedule.kind"), self.schedule.kind, "there is no budget to schedule")
        if not self.is_off and not self.reads("slack") and self.slack != "threshold":
            raise fail(
                join(path, "slack"), self.slack, f"{join(path, 'kind')} {self.kind} needs slack threshold"
            )

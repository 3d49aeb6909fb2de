"""Trust regions: which tokens may keep pushing the policy away, as a detached gate in [0, 1].

Equation numbers without a source are those of CPPO (arXiv 2606.10968).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.budgets import BudgetInputs, BudgetSpec
from cppo_lab.objectives.coordinate import OFF, Coordinate
from cppo_lab.objectives.decisions import ClipWindow, Decision
from cppo_lab.objectives.directions import Direction, directions
from cppo_lab.objectives.gates import gates
from cppo_lab.objectives.parameters import Param, fail, join
from cppo_lab.objectives.pooled import Statistics
from cppo_lab.objectives.prefixes import positions, row_mean
from cppo_lab.objectives.rules import Need, Rules
from cppo_lab.objectives.scales import Power, Scale, factor_of, scaled_bounds, scales
from cppo_lab.objectives.schedules import ScheduleSpec
from cppo_lab.objectives.thresholds import Thresholds
from cppo_lab.objectives.weights import WeightSpec, position_weights

DPPO = "arXiv:2602.04879"
TRM = "arXiv:2512.23075"
Delta = Annotated[
    float,
    Param(
        above=0,
        infinite=True,
        scheduled=True,
        always_shown=True,
        main_from=0.0,
        about="Threshold on D_t, in its units.",
    ),
]
"""The token-level threshold; a schedule and a relative budget follow it."""
DeltaMean = Annotated[
    float,
    Param(
        above=0,
        infinite=True,
        scheduled=True,
        always_shown=True,
        main_from=0.0,
        about="Threshold on a response's mean D_t.",
    ),
]
ClipRange = Annotated[float, Param(at_least=0, infinite=True, always_shown=True, main_from=0.0)]


@dataclass(frozen=True)
class RegionInputs:
    """What a trust region may read; tensors [B, T], detached."""

    spec: TrustRegionSpec
    """For its gate, weights and budget; a region's own parameters come as keyword arguments."""
    ratio: Tensor
    """The surrogate's importance ratio."""
    advantages: Tensor
    away: Tensor
    """bool: the update moves the token's probability away from the anchor."""
    mask: Tensor
    thresholds: Thresholds
    distance: Tensor | None = None
    mean_distance: Tensor | None = None
    weight_order: Tensor | None = None
    scale: Scale | None = None
    """That of `trust_region.scale`; None without one."""
    rollout_entropy: Tensor | None = None
    version_lag: Tensor | None = None
    prompt: Tensor | None = None
    """[B] int: equal for responses to the same prompt."""
    statistics: Statistics = field(default_factory=dict)
    """Of the whole minibatch, for regions with a statistic."""
    direction: Direction | None = None
    """For regions that need direction."""

    @property
    def divergence(self) -> Tensor:
        """D_t, 0 outside the mask; for regions that need divergence."""
        assert self.distance is not None, "a region that needs divergence is given it"
        return self.distance

    @property
    def mean_divergence(self) -> Tensor:
        """The divergence whose mean is tested, 0 outside the mask; for regions that need mean_divergence."""
        return self.divergence if self.mean_distance is None else self.mean_distance

    def threshold(self, delta: float) -> Tensor:
        """delta, scaled: [B, T], 0 outside the mask."""
        assert not isinstance(self.scale, Power), "only a window can be raised to a power"
        scaled = torch.full_like(self.ratio, delta) if self.scale is None else delta * self.scale
        return scaled.masked_fill(~self.mask, 0.0)

    def decide(
        self,
        within: Tensor,
        violation: Callable[[], Tensor],
        *,
        subject: Tensor | None = None,
        **parts: Any,
    ) -> Decision:
        """Gate the tokens `subject` to the region (by default those that move away) that are not `within`, bool.

        `violation` is called for a soft gate and returns x_t, at most 1 where `within` holds. `parts` are fields of
        `Decision`.
        """
        subject = self.away if subject is None else subject
        score = None
        if "violation" in gates[self.spec.gate].needs:
            score = violation().masked_fill(~self.mask, 0.0)
        passed = self.spec.rule("gate")(within if score is None else score).to(self.ratio.dtype)
        decided = {
            "by_threshold": subject & self.mask & ~within,
            "by_budget": torch.zeros_like(self.mask),
            "violation": score,
            "subject": None if subject is self.away else subject,
        }
        return Decision(gate=passed.masked_fill(~subject, 1.0) * self.mask, **(decided | parts))


trust_regions = Rules("trust_region.kind")


@trust_regions.register(OFF)
def no_region(at: RegionInputs) -> Decision:
    """Keep everything."""
    nothing = torch.zeros_like(at.mask)
    return Decision(gate=at.mask.to(at.ratio.dtype), by_threshold=nothing, by_budget=nothing)


def _check_clip(algo: Coordinate) -> None:
    region = algo.trust_region
    in_log_space = region.clip_space == "log"
    if not in_log_space and region.clip_power != 0:
        raise fail("trust_region.clip_power", region.clip_power, "needs trust_region.clip_space log")
    lowest = 0 if in_log_space else 1
    if region.dual_clip is not None and region.dual_clip <= lowest:
        raise fail("trust_region.dual_clip", region.dual_clip, f"must be greater than {lowest}")


@trust_regions.register(
    "ratio_clip",
    paper="arXiv:1707.06347",
    needs=["scale", "sharp_gate"],
    provides=["clip_window"],
    check=_check_clip,
)
def ratio_clip(
    at: RegionInputs,
    *,
    clip_low: ClipRange,
    clip_high: ClipRange,
    clip_space: Annotated[
        Literal["ratio", "log"],
        Param(refuse_unread=True, about="Bounds 1 - low and 1 + high, or exp of -low and high."),
    ] = "ratio",
    clip_power: Annotated[
        float, Param(refuse_unread=True, about="log: bounds grow with t**clip_power, t from 1 (CTPO).")
    ] = 0.0,
    dual_clip: Annotated[
        float | None,
        Param(refuse_unread=True, about="Upper bound of the ratio where A < 0 (log: of its log)."),
    ] = None,
) -> Decision:
    """Drop A > 0 with ratio > 1 + clip_high, and A < 0 with ratio < 1 - clip_low (or > dual_clip) (PPO).

    Drop where PPO's clipped minimum has no gradient; equality keeps.
    """
    window = ClipWindow(max(1 - clip_low, 0.0), 1 + clip_high, dual_clip)
    if clip_space == "log":
        scale = positions(at.mask).clamp(min=1).to(at.ratio.dtype) ** clip_power
        dual = None if dual_clip is None else (dual_clip * scale).exp()
        scale = scale if at.scale is None else scale * factor_of(at.scale)
        window = ClipWindow((-clip_low * scale).exp(), (clip_high * scale).exp(), dual)
    elif at.scale is not None:
        window = ClipWindow(*scaled_bounds(clip_low, clip_high, at.scale), dual_clip)
    cut = window.cuts(at.ratio, at.advantages) & at.mask
    passed = at.spec.rule("gate")(~cut).to(at.ratio.dtype)
    return Decision(gate=passed * at.mask, by_threshold=cut, by_budget=torch.zeros_like(cut), window=window)


@trust_regions.register(
    "divergence_threshold", paper=DPPO, needs=["divergence", "direction", "gate", "scale"]
)
def divergence_threshold(
    at: RegionInputs,
    *,
    delta: Delta,
    delta_negative: Annotated[
        float | None,
        Param(
            above=0,
            infinite=True,
            scheduled=True,
            refuse_unread=True,
            main_from=0.0,
            about="delta where A < 0; null: the same.",
        ),
    ] = None,
) -> Decision:
    """Drop tokens that move away and have D_t > delta (DPPO).

    Under another direction, the tokens that it names instead of those that move away.
    """
    assert at.direction is not None, "a region that needs direction is given it"
    distance = at.divergence
    threshold = at.threshold(delta)
    if delta_negative is not None:
        threshold = torch.where(at.advantages < 0, at.threshold(delta_negative), threshold)
    return at.decide(
        distance <= threshold,
        lambda: distance / threshold,
        subject=at.direction.subject,
        predicted_change=at.direction.change,
        threshold=threshold,
    )


@trust_regions.register("sequence_max", paper=TRM, needs=["divergence", "gate"])
def sequence_max(at: RegionInputs, *, delta: Delta) -> Decision:
    """Drop responses whose largest D exceeds delta (TRM).

    Drop whole responses, tokens that move toward the anchor included.
    """
    return _whole_responses(at, _largest(at) / delta, _largest(at) <= delta)


@trust_regions.register("sequence_mean", paper=TRM, needs=["divergence", "gate"])
def sequence_mean(at: RegionInputs, *, delta_mean: DeltaMean) -> Decision:
    """Drop responses whose mean D exceeds delta_mean (TRM).

    Drop whole responses, tokens that move toward the anchor included.
    """
    mean = row_mean(at.divergence, at.mask).unsqueeze(-1)
    return _whole_responses(at, mean / delta_mean, mean <= delta_mean)


@trust_regions.register("sequence_max_mean", paper=TRM, needs=["divergence", "mean_divergence", "gate"])
def sequence_max_mean(at: RegionInputs, *, delta: Delta, delta_mean: DeltaMean) -> Decision:
    """Drop responses that fail either test (TRM).

    Drop whole responses, tokens that move toward the anchor included.
    """
    largest = _largest(at)
    mean = row_mean(at.mean_divergence, at.mask).unsqueeze(-1)
    score = torch.maximum(largest / delta, mean / delta_mean)
    return _whole_responses(at, score, (largest <= delta) & (mean <= delta_mean))


def _largest(at: RegionInputs) -> Tensor:
    return at.divergence.amax(-1, keepdim=True)


def _whole_responses(at: RegionInputs, score: Tensor, keep: Tensor) -> Decision:
    """Gate every token of a response alike; both tensors are [B, 1]."""
    return at.decide(keep.expand_as(at.mask), lambda: score.expand_as(at.ratio), subject=at.mask)


@trust_regions.register(
    "prefix_budget", paper="arXiv:2606.10968", needs=["divergence", "gate", "weights", "budget"]
)
def prefix_budget(at: RegionInputs, *, delta: Delta) -> Decision:
    """Drop tokens that move away and have w_t D_t > c_t (CPPO, Eq. 8-10).

    c_t = min(delta, allowance_t - S_{t-1}), Eq. 8-10 (hard) and 19-20 (soft).

    Every token is charged to the prefix: kept, dropped or moving toward the anchor (Algorithm 1).
    """
    distance, mask, spec = at.divergence, at.mask, at.spec
    weights = position_weights(mask, spec.weights, at.weight_order, distance.dtype)
    cost = weights * distance
    prefix_cost, prefix_weight = cost.cumsum(-1), weights.cumsum(-1)
    size = 0.0 if at.thresholds.budget is None else at.thresholds.budget
    granted = spec.budget.rule()(BudgetInputs(distance, cost, prefix_cost, prefix_weight, mask, size, delta))
    left = granted.allowed - granted.charged_before
    threshold = left.clamp(max=delta)
    within = cost <= threshold

    def violation() -> Tensor:
        # At allowance zero (strict form, budget zero) any cost is an infinite violation and no cost is none.
        allowed, charged = granted.allowed, granted.charged
        excess = torch.where(allowed > 0, charged / allowed, torch.where(charged > 0, torch.inf, 0.0))
        return torch.maximum(cost / delta, excess)

    violated = at.away & mask & ~within
    return at.decide(
        within,
        violation,
        by_threshold=violated & (cost > delta),
        by_budget=violated & (cost <= delta),
        threshold=threshold.masked_fill(~mask, 0.0),
        prefix_threshold=None if spec.budget.is_off else left.masked_fill(~mask, 0.0),
        weights=weights,
        prefix_cost=prefix_cost,
        prefix_weight=prefix_weight,
        budget=None if spec.budget.is_off else granted.budget,
        budget_range=granted.range,
    )


class TrustRegionSpec(Coordinate, path="trust_region"):
    """Which tokens may still push the policy away from its anchor."""

    kind: Annotated[str, trust_regions] = OFF
    gate: Annotated[str, gates, Param(about="What becomes of the gradient of a token outside.")] = "hard"
    scale: Annotated[str, scales, Param(about="What delta, or a window, is scaled by.")] = OFF
    direction: Annotated[str, directions, Param(about="Which tokens outside are dropped.")] = "ratio"
    weights: Annotated[WeightSpec, Param(about="Position weights.")] = WeightSpec()
    budget: Annotated[BudgetSpec, Param(about="The prefix budget.")] = BudgetSpec()
    schedule: Annotated[ScheduleSpec, Param(about="Of delta and delta_mean.")] = ScheduleSpec()

    def uses(self, need: Need) -> bool:
        """Whether the selected region reads another coordinate or part."""
        return need in self.selected()["kind"].needs

    def check(self, path: str) -> None:
        """Raise ValueError for a part that the selected region does not read."""
        rule = self.selected()["kind"]
        self._check_gate(path)
        if self.scale != OFF and not self.uses("scale"):
            readers = ", ".join(trust_regions.that_need("scale"))
            raise fail(join(path, "scale"), self.scale, f"needs {join(path, 'kind')} {readers}")
        if not self.uses("direction") and self.direction != "ratio":
            readers = ", ".join(trust_regions.that_need("direction"))
            raise fail(join(path, "direction"), self.direction, f"needs {join(path, 'kind')} {readers}")
        if not any(each.param.scheduled for each in rule.parameters) and self.schedule.kind != "constant":
            raise fail(join(path, "schedule.kind"), self.schedule.kind, "there is no threshold to schedule")
        self._check_part(path, "weights", self.weights)
        self._check_part(path, "budget", self.budget)
        self._check_feedback(path)

    def _check_gate(self, path: str) -> None:
        if self.uses("gate") or self.gate == "hard":
            return
        sharp = [gate.name for gate in gates.values() if "violation" not in gate.needs]
        if not self.uses("sharp_gate"):
            rule = f"{join(path, 'kind')} {self.kind} has only the hard gate"
            raise fail(join(path, "gate"), self.gate, rule)
        if self.gate not in sharp:
            rule = f"{join(path, 'kind')} {self.kind} has only the gates {', '.join(sharp)}"
            raise fail(join(path, "gate"), self.gate, rule)

    def _check_part(self, path: str, name: Literal["weights", "budget"], part: Coordinate) -> None:
        if not self.uses(name) and part.kind != type(part)().kind:
            readers = ", ".join(trust_regions.that_need(name))
            raise fail(join(path, f"{name}.kind"), part.kind, f"needs {join(path, 'kind')} {readers}")

    def _check_feedback(self, path: str) -> None:
        with_feedback = [each for each in (self.schedule, self.budget.schedule) if each.has_feedback]
        if len(with_feedback) == 2:
            raise fail(
                join(path, "budget.schedule.kind"),
                self.budget.schedule.kind,
                "delta is controlled already; one masked share can steer only one of the two",
            )
        if with_feedback and "violation" in gates[self.gate].needs:
            raise fail(
                join(path, "gate"), self.gate, f"a {with_feedback[0].kind} schedule needs the hard gate"
            )

"""A method as one point: `AlgoSpec`, its cross-checks, and the tensors it asks of a trainer.

Standard library only; the coordinates themselves are in `coordinates.py` and re-exported here.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, get_args

from cppo_lab.objectives.coordinates import (
    DIVERGENCE_REGIONS,
    AggregationSpec,
    BudgetSpec,
    CorrectionSpec,
    DivergenceSpec,
    RegulariserSpec,
    ScheduleSpec,
    SurrogateSpec,
    TrustRegionSpec,
    WeightSpec,
)
from cppo_lab.objectives.signal_coordinates import (
    AdvantageSpec,
    CriticSpec,
    DynamicSamplingSpec,
    OverlongSpec,
)
from cppo_lab.objectives.validation import FORBID_UNKNOWN_KEYS, check_fields, fail

__all__ = [
    "AdvantageSpec",
    "AggregationSpec",
    "AlgoSpec",
    "Anchor",
    "BudgetSpec",
    "CorrectionSpec",
    "CriticSpec",
    "DivergenceSpec",
    "DynamicSamplingSpec",
    "OverlongSpec",
    "RegulariserSpec",
    "Requirements",
    "ScheduleSpec",
    "SurrogateSpec",
    "TrustRegionSpec",
    "WeightSpec",
]

Anchor = Literal["rollout", "old"]


@dataclass(frozen=True)
class Requirements:
    """The tensors of a `TokenBatch`, and the state, that a method needs."""

    needs_old_logp: bool
    """log pi_old: the weights that sampled, evaluated by the trainer."""
    needs_topk: int | None
    """K, when the sampler must return the top-K log-probabilities at each position; else None."""
    needs_full_distribution: bool
    needs_reference: bool
    needs_values: bool
    needs_entropy: bool
    """The entropy of pi with its gradient, for the bonus."""
    needs_weight_order: bool
    """Sort keys drawn once per rollout, for shuffled weights."""
    needs_threshold_controller: bool
    """A `thresholds.MaskedShareController` to be updated after each step and saved with the run."""


@dataclass(frozen=True, kw_only=True)
class AlgoSpec:
    """A published method, or a neighbour of one, as coordinates. Senseless combinations raise ValueError."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    name: str
    paper: str
    """Where the method comes from, "arXiv:2606.10968"."""
    anchor: Anchor
    """The policy in the denominator of the ratio: the sampler's log-probabilities (mu), or the trainer's
    recomputation of them (pi_old)."""
    paper_anchor: Anchor
    force_anchor: bool = False
    """Accept an anchor other than the paper's."""
    advantage: AdvantageSpec = field(default_factory=AdvantageSpec)
    critic: CriticSpec = field(default_factory=CriticSpec)
    divergence: DivergenceSpec = field(default_factory=DivergenceSpec)
    trust_region: TrustRegionSpec = field(default_factory=TrustRegionSpec)
    surrogate: SurrogateSpec = field(default_factory=SurrogateSpec)
    correction: CorrectionSpec = field(default_factory=CorrectionSpec)
    aggregation: AggregationSpec = field(default_factory=AggregationSpec)
    regulariser: RegulariserSpec = field(default_factory=RegulariserSpec)
    overlong: OverlongSpec = field(default_factory=OverlongSpec)
    dynamic_sampling: DynamicSamplingSpec = field(default_factory=DynamicSamplingSpec)

    def __post_init__(self) -> None:
        check_fields(self, "")
        self._check_anchor()
        self._check_divergence()
        self._check_surrogate()

    def _check_anchor(self) -> None:
        if self.anchor != self.paper_anchor and not self.force_anchor:
            raise fail(
                "anchor",
                self.anchor,
                f"{self.name} is defined with {self.paper_anchor}; set force_anchor to compare anchors",
            )
        if self.anchor == "rollout" and self.correction.kind != "none":
            raise fail(
                "correction.kind",
                self.correction.kind,
                "must be none with anchor rollout: that ratio already holds the mismatch",
            )

    def _check_divergence(self) -> None:
        kind, region = self.divergence.kind, self.trust_region.kind
        if region in DIVERGENCE_REGIONS and kind == "none":
            known = ", ".join(choice for choice in divergence_kinds() if choice != "none")
            raise fail("divergence.kind", kind, f"trust_region.kind {region} needs one of {known}")
        if self.divergence.mean_kind != "none" and region != "sequence_max_mean":
            raise fail(
                "divergence.mean_kind", self.divergence.mean_kind, "needs trust_region.kind sequence_max_mean"
            )
        for key, used in (("kind", kind), ("mean_kind", self.divergence.mean_kind)):
            if self.anchor == "old" and used.startswith(("topk", "exact")):
                raise fail(
                    f"divergence.{key}",
                    used,
                    "needs anchor rollout: only the sampler's distribution is stored",
                )

    def _check_surrogate(self) -> None:
        kind, region = self.surrogate.kind, self.trust_region
        if kind in ("clipped", "geometric") and region.kind != "ratio_clip":
            raise fail("surrogate.kind", kind, "needs trust_region.kind ratio_clip")
        if kind == "geometric" and (region.clip_space != "log" or region.dual_clip is not None):
            raise fail("surrogate.kind", kind, "needs trust_region.clip_space log and no dual_clip")

    @property
    def requirements(self) -> Requirements:
        """What a trainer must put into the `TokenBatch` for this method."""
        kinds = {self.divergence.kind, self.divergence.mean_kind}
        schedules = {self.trust_region.schedule.kind, self.trust_region.budget.schedule.kind}
        return Requirements(
            needs_old_logp=self.anchor == "old" or self.correction.kind != "none",
            needs_topk=self.divergence.k if kinds & {"topk_tv", "topk_kl"} else None,
            needs_full_distribution=bool(kinds & {"exact_tv", "exact_kl"}),
            needs_reference=self.regulariser.kl_coefficient > 0,
            needs_values=self.advantage.kind == "gae",
            needs_entropy=self.regulariser.entropy_coefficient > 0,
            needs_weight_order=self.trust_region.weights.kind == "shuffled",
            needs_threshold_controller="target_share" in schedules,
        )

    def with_horizon(self, max_response_length: int) -> "AlgoSpec":
        """The same method with H of the fixed-horizon aggregation filled in where it was left null."""
        aggregation = self.aggregation
        if aggregation.kind != "sequence_mean_token_sum_norm" or aggregation.horizon is not None:
            return self
        return replace(self, aggregation=replace(aggregation, horizon=max_response_length))


def divergence_kinds() -> tuple[str, ...]:
    """All values of `divergence.kind`."""
    return get_args(DivergenceSpec.__annotations__["kind"])

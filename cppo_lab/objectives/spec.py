"""A method as one point: `AlgoSpec`, its cross-checks, and the tensors it asks of a trainer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import cppo_lab.objectives.clipped_regions
import cppo_lab.objectives.pooled_regions  # noqa: F401  Both register their rules.
from cppo_lab.objectives.advantages import AdvantageSpec
from cppo_lab.objectives.aggregation import AggregationSpec
from cppo_lab.objectives.budgets import BudgetSpec
from cppo_lab.objectives.coordinate import OFF, Coordinate
from cppo_lab.objectives.corrections import CorrectionSpec
from cppo_lab.objectives.critics import CriticSpec
from cppo_lab.objectives.divergences import DivergenceSpec, divergences
from cppo_lab.objectives.dynamic_sampling import DynamicSamplingSpec
from cppo_lab.objectives.overlong import OverlongSpec
from cppo_lab.objectives.parameters import Param, fail
from cppo_lab.objectives.predicted_change import Tail
from cppo_lab.objectives.regularisers import RegulariserSpec
from cppo_lab.objectives.rules import Need, Rule, Statistic
from cppo_lab.objectives.schedules import ScheduleSpec
from cppo_lab.objectives.selections import SelectionSpec
from cppo_lab.objectives.surrogates import SurrogateSpec
from cppo_lab.objectives.trust_regions import TrustRegionSpec, trust_regions
from cppo_lab.objectives.weights import WeightSpec

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
    "SelectionSpec",
    "SurrogateSpec",
    "TrustRegionSpec",
    "WeightSpec",
    "neutral_tree",
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
    needs_collision: bool
    """The sum of pi^2 over the vocabulary, detached."""
    needs_entropy: bool
    """The entropy of pi with its gradient, for the bonus."""
    needs_weight_order: bool
    """Sort keys drawn once per rollout, for shuffled weights."""
    needs_rollout_entropy: bool
    """The entropy of the sampler's distribution at each position."""
    needs_version_lag: bool
    """How many training steps the weights that sampled each token are behind."""
    needs_prompt: bool
    """Which responses answer the same prompt."""
    needs_selection_order: bool
    """Sort keys drawn once per update, for a selection at random."""
    needs_statistics: bool
    """Statistics of the whole minibatch, computed before its losses (`batch_statistics`)."""
    needs_threshold_controller: bool
    """A `schedules.ThresholdController` to be updated after each step and saved with the run."""


class AlgoSpec(Coordinate):
    """A published method, or a neighbour of one, as coordinates. Senseless combinations raise ValueError."""

    name: str
    paper: Annotated[str, Param(about='Where the method comes from, "arXiv:2606.10968".')]
    anchor: Annotated[
        Anchor,
        Param(
            about="The policy in the denominator of the ratio: mu, the sampler's log-probabilities (rollout), or "
            "pi_old, the trainer's recomputation of them (old)."
        ),
    ]
    paper_anchor: Annotated[Anchor, Param(about="The paper's anchor.")]
    force_anchor: Annotated[bool, Param(about="Accept another anchor than the paper's.")] = False
    advantage: AdvantageSpec = AdvantageSpec()
    critic: CriticSpec = CriticSpec()
    divergence: DivergenceSpec = DivergenceSpec()
    trust_region: TrustRegionSpec = TrustRegionSpec()
    surrogate: SurrogateSpec = SurrogateSpec()
    selection: SelectionSpec = SelectionSpec()
    correction: CorrectionSpec = CorrectionSpec()
    aggregation: AggregationSpec = AggregationSpec()
    regulariser: RegulariserSpec = RegulariserSpec()
    overlong: OverlongSpec = OverlongSpec()
    dynamic_sampling: DynamicSamplingSpec = DynamicSamplingSpec()

    def check(self, path: str) -> None:
        """Raise ValueError for coordinates that do not go together."""
        self._check_anchor()
        self._check_divergence()
        self._check_clip_window()
        for rule in self.rules():
            if rule.check is not None:
                rule.check(self)

    def rules(self) -> Iterator[Rule]:
        """Every selected rule, those of parts of parts included."""
        for part in self._parts():
            yield from part.selected().values()

    def statistics(self, overrides: Mapping[str, Any] | None = None) -> Iterator[Statistic]:
        """What the selected rules read of a whole minibatch, as functions of its `PooledTokens`.

        Each is bound to its rule's parameters, or to those of `overrides`.
        """
        for part in self._parts():
            for rule in part.selected().values():
                if rule.statistic is None or (rule.statistic_when and not rule.statistic_when(part)):
                    continue
                read = inspect.signature(rule.statistic).parameters
                values = {**part.as_dict(), **(overrides or {})}
                bound = {name: values[name] for name in read if rule.reads(name)}
                yield functools.partial(rule.statistic, **bound)

    def _parts(self) -> Iterator[Coordinate]:
        pending: list[Coordinate] = [self]
        while pending:
            coordinate = pending.pop(0)
            yield coordinate
            pending += [value for value in vars(coordinate).values() if isinstance(value, Coordinate)]

    def needs(self, need: Need) -> bool:
        """Whether a selected rule needs it."""
        return any(need in rule.needs for rule in self.rules())

    @functools.cached_property
    def requirements(self) -> Requirements:
        """What a trainer must put into the `TokenBatch` for this method."""
        return Requirements(
            needs_old_logp=self.anchor == "old" or self.needs("old_logp"),
            needs_topk=self.divergence.k if self.needs("topk") else None,
            needs_full_distribution=self.needs("full"),
            needs_reference=self.regulariser.kl_coefficient > 0,
            needs_values=self.needs("values"),
            needs_collision=self._predicts("second_moment"),
            needs_entropy=self.regulariser.entropy_coefficient > 0,
            needs_weight_order=self.needs("weight_order"),
            needs_rollout_entropy=self.needs("rollout_entropy"),
            needs_version_lag=self.needs("version_lag"),
            needs_prompt=self.needs("prompt"),
            needs_selection_order=self.needs("selection_order"),
            needs_statistics=any(True for _ in self.statistics()),
            needs_threshold_controller=any(rule.feedback for rule in self.rules()),
        )

    def _predicts(self, tail: Tail) -> bool:
        region = self.trust_region
        return region.uses("direction") and region.direction == "predicted" and bool(region.tail == tail)

    def with_horizon(self, max_response_length: int) -> AlgoSpec:
        """The same method with H of a fixed-horizon aggregation filled in where it was left null."""
        aggregation = self.aggregation
        if not aggregation.reads("horizon") or aggregation.horizon is not None:
            return self
        return self.replace(aggregation=aggregation.replace(horizon=max_response_length))

    def _check_anchor(self) -> None:
        if self.anchor != self.paper_anchor and not self.force_anchor:
            raise fail(
                "anchor",
                self.anchor,
                f"{self.name} is defined with anchor {self.paper_anchor}; set force_anchor to use another",
            )
        if self.anchor == "rollout" and not self.correction.is_off:
            raise fail(
                "correction.kind",
                self.correction.kind,
                "must be none with anchor rollout: that ratio already holds the mismatch",
            )

    def _check_divergence(self) -> None:
        spec, region = self.divergence, self.trust_region
        needs = trust_regions[region.kind].needs
        if "divergence" in needs and spec.is_off:
            known = ", ".join(kind for kind in divergences if kind != OFF)
            raise fail("divergence.kind", spec.kind, f"trust_region.kind {region.kind} needs one of {known}")
        if spec.mean_kind != OFF and "mean_divergence" not in needs:
            readers = ", ".join(trust_regions.that_need("mean_divergence"))
            raise fail("divergence.mean_kind", spec.mean_kind, f"needs trust_region.kind {readers}")
        for key, rule in spec.selected().items():
            if self.anchor == "old" and rule.needs & {"topk", "full"}:
                raise fail(
                    f"divergence.{key}",
                    rule.name,
                    "needs anchor rollout: only the sampler's distribution is stored",
                )

    def _check_clip_window(self) -> None:
        needs = self.surrogate.selected()["kind"].needs
        if "clip_window" in needs and "clip_window" not in trust_regions[self.trust_region.kind].provides:
            known = ", ".join(rule.name for rule in trust_regions.values() if "clip_window" in rule.provides)
            raise fail("surrogate.kind", self.surrogate.kind, f"needs trust_region.kind {known}")


def neutral_tree() -> dict[str, Any]:
    """Every key of a method with its neutral value, the parameters of plug-ins included; "???" where there is none."""
    return {
        name: "???" if each.is_required else _plain(each.default)
        for name, each in AlgoSpec.parameters().items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Coordinate):
        return {name: _plain(inner) for name, inner in value.as_dict().items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value

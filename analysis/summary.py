"""What the runs of a study amount to: one result per method, its comparison to the baseline, the leader."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cppo_lab.analysis.contrasts import Comparison, compare, with_holm, with_power
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import Curve, MethodResult, Yardstick, evaluations, method_result, yardstick

DEFAULT_BASELINES = ("dppo_topk_tv", "dppo_tv", "grpo", "ppo", "pg")


@dataclass(frozen=True)
class PanelFindings:
    """Results of one panel, with the method of highest mean final accuracy and who it is resolved against."""

    panel: str
    yardstick: Yardstick
    results: tuple[MethodResult, ...]
    comparisons: tuple[Comparison, ...]
    baseline: str | None
    leader: MethodResult | None
    not_resolved_from: tuple[str, ...]

    @property
    def winner(self) -> MethodResult | None:
        """The leader, only if its lead over every other method is resolved."""
        return self.leader if self.leader is not None and not self.not_resolved_from else None


@dataclass(frozen=True)
class Findings:
    """Results of every panel, in the order of the study."""

    panels: tuple[PanelFindings, ...]

    @property
    def results(self) -> tuple[MethodResult, ...]:
        return tuple(result for panel in self.panels for result in panel.results)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(comparison for panel in self.panels for comparison in panel.comparisons)


def find(study: Study, seed: int = 0) -> Findings:
    """All results and comparisons of a study; `seed` drives the bootstrap and drawn sign flips."""
    generator = np.random.default_rng(seed)
    per_run = evaluations(study)
    return Findings(tuple(_panel(study, panel, per_run, generator) for panel in study.grouping.panels))


def baseline_of(group: Group, groups: tuple[Group, ...], wanted: str | None) -> Group | None:
    """The group of the same panel that plays the baseline: by method, by label or by an axis value.

    Without a wish: the first of dppo_topk_tv, dppo_tv, grpo, ppo, pg that is there, else the panel's first group.
    """
    peers = [peer for peer in groups if peer.panel == group.panel]
    if wanted is not None:
        for peer in peers:
            if wanted in (peer.method, peer.label) or wanted in dict(peer.values).values():
                return peer
        return next((peer for peer in groups if peer.label == wanted), None)
    for name in DEFAULT_BASELINES:
        for peer in peers:
            if peer.method == name:
                return peer
    return peers[0] if peers else None


def _panel(
    study: Study,
    panel: str,
    per_run: dict[str, Curve],
    generator: np.random.Generator,
) -> PanelFindings:
    groups = study.grouping.groups
    measure = yardstick(study, panel, per_run)
    results = tuple(
        method_result(study, group, per_run, measure, generator) for group in study.grouping.in_panel(panel)
    )
    by_label = {result.label: result for result in results}
    base_group = baseline_of(results[0].group, groups, study.baseline) if results else None
    base = by_label.get(base_group.label) if base_group else None
    raw = [compare(result, base, generator) for result in results if base is not None and result is not base]
    comparisons = with_power(with_holm(raw))
    ranked = sorted(
        (result for result in results if result.final is not None),
        key=lambda result: result.final.mean if result.final else -math.inf,
        reverse=True,
    )
    leader = ranked[0] if len(ranked) > 1 else None
    unresolved: tuple[str, ...] = ()
    if leader is not None:
        # Comparisons with the baseline were planned, whoever leads; all others are picked after seeing who does.
        pairs = with_holm([compare(a, b, generator) for a, b in combinations(ranked, 2)])
        planned = {frozenset((c.label, c.baseline)): c for c in comparisons}
        deciding = [
            (c.baseline, planned.get(frozenset((c.label, c.baseline)), c))
            for c in pairs
            if c.label == leader.label
        ]
        unresolved = tuple(other for other, comparison in deciding if not comparison.resolved)
    return PanelFindings(
        panel, measure, results, comparisons, base.label if base else None, leader, unresolved
    )

"""The results of a study: estimates of every method, contrasts with the baseline, who leads, and the sweep's claims."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cppo_lab.analysis import statistics
from cppo_lab.analysis.claim_tests import ClaimTest, answerable, check_claims
from cppo_lab.analysis.claims import Planned, read_claims
from cppo_lab.analysis.contrasts import Contrast, adjusted, compare, estimate
from cppo_lab.analysis.coordinates import has_no_rule, named_without_rule
from cppo_lab.analysis.grouping import Group, find_baseline
from cppo_lab.analysis.load.scores import Scoring, score_runs
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import Array, Run, RunTable
from cppo_lab.analysis.sequential import Looks, at_looks, read_looks
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.step_size import StepSize, step_size
from cppo_lab.analysis.tuned import at_tuned_points, point_of


@dataclass(frozen=True)
class MethodResult:
    """One group over its counted runs; the estimates are None when no run counts.

    median_step is the step by which half of the runs had reached the threshold: infinite where fewer did, NaN where
    there is no threshold or no run.
    """

    group: Group
    runs: tuple[Run, ...]
    shown: int
    unfinished: int
    failed: int
    diverged: int
    start: Estimate | None
    final: Estimate | None
    gain: Estimate | None
    best: Estimate | None
    area: Estimate | None
    median_step: float
    interquartile: float
    interquartile_interval: tuple[float, float] | None

    @property
    def label(self) -> str:
        return self.group.label

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def collapses(self) -> int:
        return int(sum(run.collapsed for run in self.runs))

    @property
    def reached(self) -> int:
        """Runs that reached the threshold."""
        return int(np.isfinite(self.values("reached_at")).sum())

    @property
    def collapse_interval(self) -> tuple[float, float] | None:
        """Interval of the share of runs that collapse; None when no run counts."""
        return statistics.share_interval(self.collapses, self.n) if self.runs else None

    def values(self, name: str) -> Array:
        """A score of every counted run, [n]."""
        return np.array([getattr(run, name) for run in self.runs], dtype=np.float64)


@dataclass(frozen=True)
class PanelSummary:
    """Results of one panel, with the method of highest mean final accuracy and those it is not resolved from."""

    panel: str
    scoring: Scoring
    results: tuple[MethodResult, ...]
    contrasts: tuple[Contrast, ...]
    baseline: str | None
    leader: MethodResult | None
    not_resolved_from: tuple[str, ...]
    looks: Looks | None = None

    @property
    def winner(self) -> MethodResult | None:
        """The leader, only if its lead over every other method is resolved."""
        return self.leader if self.leader is not None and not self.not_resolved_from else None


@dataclass(frozen=True)
class Summary:
    """The results of every panel in the order of the study, the claims of its sweep, and what is known of the size of
    the
    step where the study varies it.
    """

    table: RunTable
    panels: tuple[PanelSummary, ...]
    claims: tuple[ClaimTest, ...] = ()
    step_size: StepSize | None = None

    @property
    def results(self) -> tuple[MethodResult, ...]:
        return tuple(result for panel in self.panels for result in panel.results)

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        return tuple(contrast for panel in self.panels for contrast in panel.contrasts)

    @property
    def has_looks(self) -> bool:
        """Whether seeds were added until the contrasts were settled."""
        return any(panel.looks is not None for panel in self.panels)

    def of_panels(self, panels: Collection[str]) -> Summary:
        """The same summary with the results of these panels alone."""
        return replace(self, panels=tuple(panel for panel in self.panels if panel.panel in panels))


def summarise(study: Study) -> Summary:
    """All results, contrasts and claims of a study."""
    table, scoring = score_runs(study)
    table = at_tuned_points(table, study.tuned.get("points", ()))
    planned = _planned(study)
    claims = [claim for claim in read_claims(study.name, study.claims) if answerable(claim, planned)]
    tests = check_claims(claims, table, planned, study.name)
    panels = tuple(_panel(study, panel, table, scoring[panel], tests) for panel in study.grouping.panels)
    names = {
        str(run): str(name) for run, name in study.runs.get("config.algo.name", study.runs["method"]).items()
    }
    return Summary(table, panels, tuple(tests), step_size(table, _without_rule(study), names))


def _without_rule(study: Study) -> frozenset[str]:
    """The methods that are plain policy gradient in all their runs, by their recorded coordinates."""
    prefix = "config.algo."
    columns = [column for column in study.runs.columns if column.startswith(prefix)]
    if not columns:
        return named_without_rule(study.grouping.methods)
    found: dict[str, bool] = {}
    for row in study.runs[["method", *columns]].to_dict("records"):
        values = {
            str(key).removeprefix(prefix): value
            for key, value in row.items()
            if str(key) != "method" and value == value and value is not None
        }
        if not values:
            # A run without a folder has no coordinates yet; those of the others tell.
            continue
        name = str(row["method"])
        found[name] = found.get(name, True) and "name" in values and has_no_rule(values)
    return frozenset(name for name, is_plain in found.items() if is_plain)


def _planned(study: Study) -> list[Planned]:
    """Every run that the study lists, measured or not."""
    groups = {group.label: group for group in study.grouping.groups}
    points = study.tuned.get("points", ())
    return [
        Planned(
            member.panel, member.method, member.seeds, axes, point_of(member.method, axes, points) is not None
        )
        for member in study.grouping.membership.values()
        for axes in [dict(groups[member.label].values)]
    ]


def _panel(
    study: Study, panel: str, table: RunTable, scoring: Scoring, tests: Sequence[ClaimTest]
) -> PanelSummary:
    groups = study.grouping.in_panel(panel)
    results = tuple(_method_result(study, group, table.of(panel, group.method), scoring) for group in groups)
    baseline = find_baseline(groups, study.baseline)
    base = next((result for result in results if result.group is baseline), None)
    looks = read_looks(study.looks)
    contrasts = _settled(
        [_compare(result, base) for result in results if base is not None and result is not base],
        tests,
        looks,
    )
    ranked = sorted(
        (result for result in results if result.final is not None),
        key=lambda result: result.final.mean if result.final else -math.inf,
        reverse=True,
    )
    leader = ranked[0] if len(ranked) > 1 else None
    unresolved: tuple[str, ...] = ()
    if leader is not None:
        # Contrasts with the baseline were planned; those with the leader are chosen after seeing the results.
        pairs = _settled([_compare(a, b) for a, b in combinations(ranked, 2)], tests, looks)
        planned = {frozenset((c.treatment, c.baseline)): c for c in contrasts}
        deciding = [
            (c.baseline, planned.get(frozenset((c.treatment, c.baseline)), c))
            for c in pairs
            if c.treatment == leader.label
        ]
        unresolved = tuple(str(other) for other, contrast in deciding if not contrast.resolved)
    label = base.label if base else None
    return PanelSummary(panel, scoring, results, contrasts, label, leader, unresolved, looks)


def _compare(treatment: MethodResult, baseline: MethodResult) -> Contrast:
    return compare(treatment.runs, baseline.runs, (treatment.label, baseline.label))


def _settled(
    contrasts: Sequence[Contrast], tests: Sequence[ClaimTest], looks: Looks | None
) -> tuple[Contrast, ...]:
    """The contrasts with adjusted p values. A contrast that a claim is about is adjusted among the claims, so that it
    has one verdict everywhere; the rest are a family of their own.
    """
    if looks is not None:
        return at_looks(contrasts, looks)
    claimed = {
        test.contrast.runs: test
        for test in tests
        if test.claim.score == "final"
        and not test.claim.measure
        and test.claim.baseline
        and not test.claim.than
        and not test.claim.between
    }
    rest = iter(adjusted([each for each in contrasts if not each.runs or each.runs not in claimed]))
    return tuple(
        replace(each, p_adjusted=claimed[each.runs].p_different, family=claimed[each.runs].family)
        if each.runs and each.runs in claimed
        else next(rest)
        for each in contrasts
    )


def _method_result(study: Study, group: Group, runs: tuple[Run, ...], scoring: Scoring) -> MethodResult:
    rows = study.runs[study.runs["group"] == group.label]
    values = {
        name: np.array([getattr(run, name) for run in runs]) for name in ("start", "final", "best", "area")
    }
    finals = values["final"]
    known = bool(runs) and math.isfinite(scoring.threshold)
    enough = not statistics.interquartile_mean_is_mean(finals)
    return MethodResult(
        group=group,
        runs=runs,
        shown=len(rows),
        unfinished=int((~rows["status"].isin(["FINISHED", "FAILED"])).sum()),
        failed=int((rows["status"] == "FAILED").sum()),
        diverged=int(rows["diverged"].sum()),
        start=estimate(values["start"]),
        final=estimate(finals, [run.final_error for run in runs]),
        gain=estimate(finals - values["start"]),
        best=estimate(values["best"], [run.evaluation_stderr for run in runs]),
        area=estimate(values["area"]),
        median_step=statistics.median_step(np.array([run.reached_at for run in runs])) if known else math.nan,
        interquartile=statistics.interquartile_mean(finals) if len(finals) else math.nan,
        # A generator of its own: the draws do not depend on the other methods of the report.
        interquartile_interval=statistics.stratified_bootstrap_interval(finals, np.random.default_rng(0))
        if enough
        else None,
    )

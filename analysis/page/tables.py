"""The tables of results: what is shown as text, and the numbers behind it for CSV."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cppo_lab.analysis import statistics
from cppo_lab.analysis.claim_tests import ClaimTest
from cppo_lab.analysis.contrasts import POWER, Contrast
from cppo_lab.analysis.formatting import (
    MINUS,
    NONE,
    count,
    p_value,
    percent,
    percent_range,
    points,
    points_range,
    probability,
    significant,
    size_in_points,
)
from cppo_lab.analysis.method_notes import final_in_words, threshold_in_words, window_in_words
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.analysis.summary import MethodResult, Summary
from cppo_lab.analysis.verdict_text import claim_measured, claim_seeds, claim_verdict


@dataclass(frozen=True)
class Cell:
    """Text to show, the value to sort by and for CSV, and the method whose colour it bears, if any."""

    text: str
    value: float | str | None = None
    method: str | None = None

    @classmethod
    def of(cls, value: float | None, show: Callable[[float | None], str]) -> Cell:
        """A number as `show` writes it; blank in CSV where there is none."""
        return cls(show(value), "" if value is None or pd.isna(value) else float(value))


@dataclass(frozen=True)
class Table:
    """`columns` holds (header, is numeric); every row has one cell per column. `mark` says what speaks against it."""

    name: str
    caption: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]
    mark: str = ""

    def marked(self, mark: str) -> Table:
        """The same table, its caption headed by `mark`; itself where there is nothing to say."""
        if not mark:
            return self
        return replace(self, caption=f"{mark[0].upper()}{mark[1:]}. {self.caption}", mark=mark)

    def frame(self) -> pd.DataFrame:
        """The values behind the cells, one column per header; a mark has a column of its own, since a file of values
        has no caption.
        """
        frame = pd.DataFrame(
            [[cell.text if cell.value is None else cell.value for cell in row] for row in self.rows],
            columns=[header for header, _ in self.columns],
        )
        return frame.assign(mark=self.mark) if self.mark else frame


def results_table(summary: Summary) -> Table:
    """The one table beside the verdict."""
    contrasts = {contrast.treatment: contrast for contrast in summary.contrasts}
    baselines = {panel.baseline for panel in summary.panels}
    rows = []
    for panel in summary.panels:
        inside = panel.scoring.evaluations_in_window
        overshoot = statistics.expected_maximum_of_normals(inside) if inside else 0.0
        ranked = sorted(panel.results, key=lambda r: r.final.mean if r.final else -math.inf, reverse=True)
        for result in ranked:
            contrast = contrasts.get(result.label)
            is_baseline = result.label in baselines
            bias = float(result.values("evaluation_stderr").mean()) * overshoot if result.n else math.nan
            rows.append(
                (
                    Cell(result.label, method=result.group.method),
                    Cell(f"{result.n}{_of_shown(result)}", result.n),
                    _estimate_cell(result.start, percent),
                    _estimate_cell(result.final, percent),
                    Cell(percent_range(result.final), _low_high(result.final)),
                    _estimate_cell(result.gain, points),
                    _estimate_cell(result.best, percent),
                    Cell.of(bias, points),
                    Cell(
                        f"{result.collapses} of {result.n}" if result.n else NONE,
                        result.collapses if result.n else "",
                    ),
                    _estimate_cell(contrast.estimate if contrast else None, points),
                    Cell(
                        points_range(contrast.estimate) if contrast else NONE,
                        _low_high(contrast.estimate if contrast else None),
                    ),
                    Cell("baseline" if is_baseline else contrast.verdict if contrast else NONE),
                )
            )
    return Table(
        "results",
        f"Held-out accuracy per method, highest first. Final: {final_in_words(summary)}; 95% Student t intervals "
        "over n seeds. Differences are paired by seed and starting policy, in percentage points.",
        (
            ("method", False),
            ("n", True),
            ("start", True),
            ("final", True),
            ("95% interval", True),
            ("gain", True),
            ("best in window", True),
            ("selection bias", True),
            ("collapsed", True),
            ("against baseline", True),
            ("95% interval of difference", True),
            ("verdict", False),
        ),
        tuple(rows),
    )


def contrasts_table(summary: Summary) -> Table | None:
    """Tests and power behind each contrast with the baseline."""
    if not summary.contrasts:
        return None
    rows = tuple(
        (
            Cell(c.treatment),
            Cell(str(c.baseline)),
            Cell(str(c.n), c.n),
            _estimate_cell(c.estimate, points),
            Cell.of(c.p, p_value),
            Cell.of(None if math.isnan(c.p) else c.p_adjusted, p_value),
            Cell.of(c.p_sign_flip, p_value),
            Cell.of(c.improvement, probability),
            Cell.of(c.smallest_detectable, size_in_points),
            _seeds_needed(c),
        )
        for c in summary.contrasts
    )
    return Table(
        "contrasts",
        "Paired contrasts of final accuracy with the baseline. Improvement: probability that a run of the method beats "
        "a run of the baseline. Detectable: the true difference, in points, that this many pairs detect with "
        f"{100 * POWER:.0f}% power at the observed spread, whatever the other contrasts show. Seeds needed: to detect "
        "the observed difference.",
        (
            ("method", False),
            ("baseline", False),
            ("pairs", True),
            ("difference", True),
            ("paired t p", True),
            ("Holm p", True),
            ("sign-flip p", True),
            ("improvement", True),
            ("detectable", True),
            ("seeds needed", True),
        ),
        rows,
    )


def claims_table(tests: Sequence[ClaimTest], table: RunTable) -> Table:
    """Every claim of a sweep with its contrast, tests and verdict."""
    rows = []
    for test in tests:
        claim = test.claim
        contrast = f"{claim.treatment} {MINUS} {claim.baseline}" if claim.baseline else claim.treatment
        score = "" if claim.score == "final" else f", {claim.score.replace('_', ' ')}"
        than = f" {MINUS} {claim.than:g}" if claim.than else ""
        tested = test.estimate is not None and test.estimate.has_interval
        rows.append(
            (
                Cell(claim.says),
                Cell(f"{contrast}{score}{than}"),
                Cell(test.panel),
                Cell(claim_measured(test, table), test.estimate.mean if test.estimate else ""),
                *(
                    Cell(f"{p:.2g}", p) if tested else Cell("", "")
                    for p in (test.adjusted.holds, test.adjusted.fails)
                ),
                Cell(claim_seeds(test)),
                Cell(claim_verdict(test)),
            )
        )
    return Table(
        "claims",
        "The claims of the sweep's file, each tested for and against, with p values Holm-adjusted over the claims of a "
        "panel.",
        (
            ("claim", False),
            ("contrast", False),
            ("panel", False),
            ("measured", True),
            ("p for", True),
            ("p against", True),
            ("seeds", True),
            ("verdict", False),
        ),
        tuple(rows),
    )


def learning_table(summary: Summary) -> Table | None:
    """What a method learned and how soon: the interquartile mean, the whole curve, the step of a threshold."""
    results = [result for result in summary.results if result.n]
    if not results:
        return None
    windows = {panel.panel: panel.scoring.window for panel in summary.panels}
    rows = tuple(
        (
            Cell(result.label, method=result.group.method),
            Cell(str(result.n), result.n),
            Cell.of(result.interquartile, percent),
            Cell(_range(result.interquartile_interval)),
            _estimate_cell(result.area, percent),
            Cell(percent_range(result.area), _low_high(result.area)),
            _median_step(result, windows[result.group.panel]),
            Cell(NONE if math.isnan(result.median_step) else f"{result.reached} of {result.n}"),
        )
        for result in results
    )
    return Table(
        "learning",
        "What was learned, and how soon. Interquartile mean of the final accuracies, with a stratified bootstrap "
        "interval from four seeds on (below four it is just the mean). Area: mean height of the accuracy curve within "
        f"{window_in_words(summary)}, a diverged run carried on at its last value. Steps to threshold: by when half "
        f"of the runs had been evaluated at {threshold_in_words(summary)} or more; reached: how many ever were.",
        (
            ("method", False),
            ("n", True),
            ("interquartile mean", True),
            ("bootstrap 95%", True),
            ("area under curve", True),
            ("95% interval of area", True),
            ("steps to threshold", True),
            ("reached", True),
        ),
        rows,
    )


def stability_table(summary: Summary) -> Table | None:
    """KL, masking and collapses per method."""
    results = [result for result in summary.results if result.n]
    if not results:
        return None
    rows = tuple(
        (
            Cell(result.label, method=result.group.method),
            Cell.of(_mean(result, "kl_median"), significant),
            Cell.of(_mean(result, "kl_p90"), significant),
            Cell.of(_mean(result, "masked_share"), percent),
            Cell(f"{result.collapses} of {result.n}", result.collapses),
            Cell(_range(result.collapse_interval)),
            Cell(f"{result.diverged} of {result.shown}", result.diverged),
            Cell.of(_mean(result, "evaluation_stderr"), size_in_points),
        )
        for result in results
    )
    return Table(
        "stability",
        "Stability per method, means over seeds. KL: k3 estimate from the rollout policy in nats per "
        "token, median and 90th percentile over steps. Collapsed: final accuracy below half of the start, with the "
        "Clopper-Pearson interval of the share of runs that do so. Evaluation error: binomial standard error of one "
        "evaluation, in points.",
        (
            ("method", False),
            ("KL median", True),
            ("KL 90th percentile", True),
            ("tokens masked", True),
            ("collapsed", True),
            ("95% interval of share", True),
            ("diverged", True),
            ("evaluation error", True),
        ),
        rows,
    )


def _estimate_cell(estimate: statistics.Estimate | None, show: Callable[[float | None], str]) -> Cell:
    return Cell.of(None if estimate is None else estimate.mean, show)


def _low_high(estimate: statistics.Estimate | None) -> str:
    if estimate is None or not estimate.has_interval:
        return ""
    return f"{estimate.low:.6f} to {estimate.high:.6f}"


def _of_shown(result: MethodResult) -> str:
    return "" if result.n == result.shown else f" of {result.shown}"


def _seeds_needed(contrast: Contrast) -> Cell:
    needed = contrast.seeds_needed
    if needed is None:
        return Cell(NONE, "")
    return Cell(f"{needed:.0f}", int(needed)) if math.isfinite(needed) else Cell("> 1000", "")


def _mean(result: MethodResult, name: str) -> float:
    values = result.values(name)
    values = values[~pd.isna(values)]
    return float(values.mean()) if len(values) else math.nan


def _median_step(result: MethodResult, window: int) -> Cell:
    if math.isinf(result.median_step):
        return Cell(f"> {window}", "")
    return Cell.of(result.median_step, count)


def _range(interval: tuple[float, float] | None) -> str:
    return NONE if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"

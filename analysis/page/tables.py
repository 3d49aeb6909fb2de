"""The tables of results: what is shown as text, and the numbers behind it for CSV."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from cppo_lab.analysis import statistics
from cppo_lab.analysis.contrasts import POWER, Comparison
from cppo_lab.analysis.formatting import (
    NONE,
    count,
    listed,
    p_value,
    percent,
    percent_range,
    points,
    points_range,
    probability,
    significant,
    size_in_points,
)
from cppo_lab.analysis.run_table import MethodResult
from cppo_lab.analysis.summary import Findings


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


def results_table(findings: Findings) -> Table:
    """The one table beside the verdict."""
    compared = {comparison.label: comparison for comparison in findings.comparisons}
    baselines = {panel.baseline for panel in findings.panels}
    rows = []
    for panel in findings.panels:
        inside = panel.yardstick.evaluations_in_window
        overshoot = statistics.expected_maximum_of_normals(inside) if inside else 0.0
        ranked = sorted(panel.results, key=lambda r: r.final.mean if r.final else -math.inf, reverse=True)
        for result in ranked:
            comparison = compared.get(result.label)
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
                    _difference_cell(comparison, is_baseline),
                    Cell(
                        points_range(comparison.difference) if comparison else NONE,
                        _low_high(comparison.difference if comparison else None),
                    ),
                    Cell("baseline" if is_baseline else comparison.verdict if comparison else NONE),
                )
            )
    return Table(
        "results",
        f"Held-out accuracy per method, highest first. Final: {final_in_words(findings)}; 95% Student t intervals "
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


def final_in_words(findings: Findings) -> str:
    """Which evaluations make the final accuracy, panel by panel where they differ."""
    return _by_panel(
        findings,
        [
            f"the mean of the last {panel.yardstick.final_evaluations} evaluations"
            if panel.yardstick.final_evaluations > 1
            else "the last evaluation"
            for panel in findings.panels
        ],
    )


def window_in_words(findings: Findings) -> str:
    """Steps among which the best evaluation is looked for, panel by panel where they differ."""
    return _by_panel(findings, [f"steps 0 to {panel.yardstick.window}" for panel in findings.panels])


def comparisons_table(findings: Findings) -> Table | None:
    """Tests and power behind each comparison to the baseline."""
    if not findings.comparisons:
        return None
    rows = tuple(
        (
            Cell(c.label),
            Cell(c.baseline),
            Cell(str(c.pairs), c.pairs),
            _estimate_cell(c.difference, points),
            Cell.of(c.p_t, p_value),
            Cell.of(c.p_holm, p_value),
            Cell.of(c.p_sign_flip, p_value),
            Cell.of(c.improvement, probability),
            Cell.of(c.smallest_resolvable, size_in_points),
            Cell(_pairs_needed(c), c.pairs_needed if c.pairs_needed is not None else ""),
        )
        for c in findings.comparisons
    )
    return Table(
        "comparisons",
        "Paired comparisons of final accuracy. Improvement: probability that a run of the method beats a run of "
        f"the baseline. Resolvable: the true difference, in points, that this many pairs find with probability {POWER} "
        "at the spread seen, whatever the other comparisons give. Pairs needed: for a true difference as large as the "
        "one seen.",
        (
            ("method", False),
            ("baseline", False),
            ("pairs", True),
            ("difference", True),
            ("paired t p", True),
            ("Holm p", True),
            ("sign-flip p", True),
            ("improvement", True),
            ("resolvable", True),
            ("pairs needed", True),
        ),
        rows,
    )


def learning_table(findings: Findings) -> Table | None:
    """What a method learned and how soon: the interquartile mean, the whole curve, the step of a threshold."""
    results = [result for result in findings.results if result.n]
    if not results:
        return None
    windows = {panel.panel: panel.yardstick.window for panel in findings.panels}
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
        f"{window_in_words(findings)}, a diverged run carried on at its last value. Steps to threshold: by when half "
        f"of the runs had been evaluated at {threshold_in_words(findings)} or more; reached: how many ever were.",
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


def threshold_in_words(findings: Findings) -> str:
    """The accuracy that the steps to a threshold are counted to, panel by panel where they differ."""
    return _by_panel(
        findings,
        [
            percent(panel.yardstick.threshold)
            if math.isfinite(panel.yardstick.threshold)
            else "no threshold (no method ended above its start)"
            for panel in findings.panels
        ],
    )


def stability_table(findings: Findings) -> Table | None:
    """KL, masking and collapses per method."""
    results = [result for result in findings.results if result.n]
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


def _by_panel(findings: Findings, texts: list[str]) -> str:
    """The text, or where they differ those of the panels that have anything to speak of."""
    told = [
        (panel, text)
        for panel, text in zip(findings.panels, texts, strict=True)
        if any(result.n for result in panel.results)
    ]
    if len({text for _, text in told}) < 2:
        return told[0][1] if told else texts[0]
    return listed([f"{text} for {panel.panel}" for panel, text in told])


def _estimate_cell(estimate: statistics.Estimate | None, show: Callable[[float | None], str]) -> Cell:
    return Cell.of(None if estimate is None else estimate.mean, show)


def _difference_cell(comparison: Comparison | None, is_baseline: bool) -> Cell:
    if is_baseline or comparison is None or comparison.difference is None:
        return Cell(NONE, "")
    return Cell(points(comparison.difference.mean), comparison.difference.mean)


def _low_high(estimate: statistics.Estimate | None) -> str:
    if estimate is None or not estimate.has_interval:
        return ""
    return f"{estimate.low:.6f} to {estimate.high:.6f}"


def _of_shown(result: MethodResult) -> str:
    return "" if result.n == result.shown else f" of {result.shown}"


def _pairs_needed(comparison: Comparison) -> str:
    if comparison.difference is None or comparison.difference.n < 2:
        return NONE
    return "> 1000" if comparison.pairs_needed is None else str(comparison.pairs_needed)


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

"""Tables: the text of each cell, and the number behind it for sorting and CSV. The tables of results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
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
from cppo_lab.analysis.run_table import RunTable, known_mean
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.summary import MethodResult, Summary
from cppo_lab.analysis.verdict_text import FELL, claim_measured, claim_seeds, claim_verdict

Item = TypeVar("Item")


@dataclass(frozen=True)
class Cell:
    """Text to show, the value to sort by and for CSV, and the method whose colour it has, if any."""

    text: str
    value: float | str | None = None
    method: str | None = None

    @classmethod
    def of(cls, value: float | None, show: Callable[[float | None], str]) -> Cell:
        """A number as `show` writes it; blank in CSV where there is none."""
        return cls(show(value), "" if value is None or pd.isna(value) else float(value))

    @classmethod
    def mean(cls, estimate: Estimate | None, show: Callable[[float | None], str]) -> Cell:
        """The mean of an estimate."""
        return cls.of(None if estimate is None else estimate.mean, show)

    @classmethod
    def interval(cls, estimate: Estimate | None, show: Callable[[Estimate | None], str]) -> Cell:
        """The interval of an estimate."""
        known = estimate is not None and estimate.shows_interval
        return cls(show(estimate), f"{estimate.low:.6f} to {estimate.high:.6f}" if estimate and known else "")

    @classmethod
    def part(cls, number: int, total: int) -> Cell:
        """`2 of 3`; nothing of nothing."""
        return cls(f"{number} of {total}", number) if total else cls(NONE, "")


@dataclass(frozen=True)
class Column(Generic[Item]):
    """A header, and the cell below it for each row's item."""

    header: str
    cell: Callable[[Item], Cell]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """`columns` holds (header, is numeric); every row has one cell per column. `mark`: a warning about the table."""

    name: str
    caption: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]
    mark: str = ""

    @classmethod
    def of(cls, name: str, caption: str, columns: Sequence[Column[Item]], items: Iterable[Item]) -> Table:
        """A table with one row per item."""
        return cls(
            name,
            caption,
            tuple((column.header, column.numeric) for column in columns),
            tuple(tuple(column.cell(item) for column in columns) for item in items),
        )

    def marked(self, mark: str) -> Table:
        """The same table with the warning at the start of its caption; itself without a warning."""
        if not mark:
            return self
        return replace(self, caption=f"{mark[0].upper()}{mark[1:]}. {self.caption}", mark=mark)

    def frame(self) -> pd.DataFrame:
        """The values behind the cells, one column per header; the warning is a column, as a CSV has no caption."""
        frame = pd.DataFrame(
            [[cell.text if cell.value is None else cell.value for cell in row] for row in self.rows],
            columns=[header for header, _ in self.columns],
        )
        return frame.assign(mark=self.mark) if self.mark else frame


TUNED_NOTE = (
    " Tune on more: no number of test seeds detects it, since the error of the tuned points stays; tuning on more "
    "seeds would be needed."
)
METHOD = Column[MethodResult](
    "method", lambda result: Cell(result.label, method=result.group.method), numeric=False
)


_GREEDY = (
    Column[MethodResult]("greedy start", lambda r: Cell.of(known_mean(r.values("greedy_start")), percent)),
    Column[MethodResult]("greedy final", lambda r: Cell.of(known_mean(r.values("greedy_final")), percent)),
)


def results_table(summary: Summary) -> Table:
    """The table below the verdict."""
    contrasts = {contrast.treatment: contrast for contrast in summary.contrasts}
    baselines = {panel.baseline for panel in summary.panels}
    overshoots = {panel.panel: _overshoot(panel.scoring.evaluations_in_window) for panel in summary.panels}

    def difference(result: MethodResult) -> Estimate | None:
        contrast = contrasts.get(result.label)
        return contrast.estimate if contrast else None

    def bias(result: MethodResult) -> float:
        if not result.n:
            return math.nan
        return float(result.values("evaluation_stderr").mean()) * overshoots[result.group.panel]

    def verdict(result: MethodResult) -> str:
        if result.label in baselines:
            return "baseline"
        return contrasts[result.label].verdict if result.label in contrasts else NONE

    results = [result for panel in summary.panels for result in panel.results]
    is_greedy = any(np.isfinite(result.values("greedy_final")).any() for result in results)
    told = " Greedy: of the likeliest tokens; what samples gain and these do not is sharpening." * is_greedy
    return Table.of(
        "results",
        f"Held-out accuracy per method, highest first. Final: {final_in_words(summary)}; 95% Student t intervals "
        f"over n seeds. Differences are paired by seed and starting policy, in percentage points.{told}",
        (
            METHOD,
            Column("n", lambda r: Cell(f"{r.n}" if r.n == r.shown else f"{r.n} of {r.shown}", r.n)),
            Column("start", lambda r: Cell.mean(r.start, percent)),
            Column("final", lambda r: Cell.mean(r.final, percent)),
            Column("95% interval", lambda r: Cell.interval(r.final, percent_range)),
            Column("gain", lambda r: Cell.mean(r.gain, points)),
            Column("best in window", lambda r: Cell.mean(r.best, percent)),
            Column("selection bias", lambda r: Cell.of(bias(r), points)),
            Column("collapsed", lambda r: Cell.part(r.collapses, r.n)),
            Column("against baseline", lambda r: Cell.mean(difference(r), points)),
            Column("95% interval of difference", lambda r: Cell.interval(difference(r), points_range)),
            Column("verdict", lambda r: Cell(verdict(r)), numeric=False),
            *(_GREEDY if is_greedy else ()),
        ),
        (
            result
            for panel in summary.panels
            for result in sorted(
                panel.results, key=lambda r: r.final.mean if r.final else -math.inf, reverse=True
            )
        ),
    )


def contrasts_table(summary: Summary) -> Table | None:
    """Tests and power behind each contrast with the baseline."""
    if not summary.contrasts:
        return None
    adjusted = "adjusted p" if summary.has_looks else "Holm p"
    columns: tuple[Column[Contrast], ...] = (
        Column("method", lambda c: Cell(c.treatment), numeric=False),
        Column("baseline", lambda c: Cell(str(c.baseline)), numeric=False),
        Column("pairs", lambda c: Cell(str(c.n), c.n)),
        Column("difference", lambda c: Cell.mean(c.estimate, points)),
        Column("paired t p", lambda c: Cell.of(c.p, p_value)),
        Column(adjusted, lambda c: Cell.of(None if math.isnan(c.p) else c.p_adjusted, p_value)),
        Column("sign-flip p", lambda c: Cell.of(c.p_sign_flip, p_value)),
        Column("improvement", lambda c: Cell.of(c.improvement, probability)),
        Column("detectable", lambda c: Cell.of(c.smallest_detectable, size_in_points)),
        Column("seeds needed", _seeds_needed),
    )
    return Table.of(
        "contrasts",
        "Paired contrasts of final accuracy with the baseline. Improvement: probability that a run of the method beats "
        "a run of the baseline. Detectable: the true difference, in points, that this many pairs detect with "
        f"{100 * POWER:.0f}% power at the observed spread, whatever the other contrasts show. Seeds needed: to detect "
        f"the observed difference.{TUNED_NOTE if any(each.needs_tuning for each in summary.contrasts) else ''}",
        columns,
        summary.contrasts,
    )


def claims_table(tests: Sequence[ClaimTest], table: RunTable) -> Table:
    """Every claim of a sweep with its contrast, tests and verdict."""

    def p(test: ClaimTest, value: float) -> Cell:
        known = test.estimate is not None and test.estimate.shows_interval
        return Cell(f"{value:.2g}", value) if known else Cell("", "")

    columns: tuple[Column[ClaimTest], ...] = (
        Column("claim", lambda t: Cell(t.claim.says), numeric=False),
        Column("contrast", lambda t: Cell(_contrast_of(t)), numeric=False),
        Column("panel", lambda t: Cell(t.panel), numeric=False),
        Column("measured", lambda t: Cell(claim_measured(t, table), t.estimate.mean if t.estimate else "")),
        Column("p for", lambda t: p(t, t.adjusted.holds)),
        Column("p against", lambda t: p(t, t.adjusted.fails)),
        Column("seeds", lambda t: Cell(claim_seeds(t))),
        Column("verdict", lambda t: Cell(claim_verdict(t)), numeric=False),
    )
    return Table.of(
        "claims",
        "The claims of the sweep's file, each tested for and against, with p values Holm-adjusted over the claims of a "
        f"panel. {FELL}: one of the methods ended below its starting policy.",
        columns,
        tests,
    )


def learning_table(summary: Summary) -> Table | None:
    """How much a method learned and how fast: the interquartile mean, the whole curve, the step of a threshold."""
    windows = {panel.panel: panel.scoring.window for panel in summary.panels}

    def median_step(result: MethodResult) -> Cell:
        if math.isinf(result.median_step):
            return Cell(f"> {windows[result.group.panel]}", "")
        return Cell.of(result.median_step, count)

    return _of_counted(
        "learning",
        "How much was learned, and how fast. Interquartile mean of the final accuracies, with a stratified bootstrap "
        "interval from four seeds on (below four it equals the mean). Area: mean height of the accuracy curve within "
        f"{window_in_words(summary)}; a diverged run is continued at its last value. Steps to threshold: by when half "
        f"of the runs had been evaluated at {threshold_in_words(summary)} or more; reached: how many ever were.",
        (
            METHOD,
            Column("n", lambda r: Cell(str(r.n), r.n)),
            Column("interquartile mean", lambda r: Cell.of(r.interquartile, percent)),
            Column("bootstrap 95%", lambda r: Cell(_range(r.interquartile_interval))),
            Column("area under curve", lambda r: Cell.mean(r.area, percent)),
            Column("95% interval of area", lambda r: Cell.interval(r.area, percent_range)),
            Column("steps to threshold", median_step),
            Column("reached", lambda r: Cell(NONE if math.isnan(r.median_step) else f"{r.reached} of {r.n}")),
        ),
        summary,
    )


def stability_table(summary: Summary) -> Table | None:
    """KL, masking and collapses per method."""
    return _of_counted(
        "stability",
        "Stability per method, means over seeds. KL: k3 estimate from the rollout policy in nats per "
        "token, median and 90th percentile over steps. Collapsed: final accuracy below half of the start, with the "
        "Clopper-Pearson interval of the share of such runs. Evaluation error: binomial standard error of one "
        "evaluation, in points.",
        (
            METHOD,
            Column("KL median", lambda r: Cell.of(_mean(r, "kl_median"), significant)),
            Column("KL 90th percentile", lambda r: Cell.of(_mean(r, "kl_p90"), significant)),
            Column("tokens masked", lambda r: Cell.of(_mean(r, "masked_share"), percent)),
            Column("collapsed", lambda r: Cell.part(r.collapses, r.n)),
            Column("95% interval of share", lambda r: Cell(_range(r.collapse_interval))),
            Column("diverged", lambda r: Cell.part(r.diverged, r.shown)),
            Column("evaluation error", lambda r: Cell.of(_mean(r, "evaluation_stderr"), size_in_points)),
        ),
        summary,
    )


def _of_counted(
    name: str, caption: str, columns: Sequence[Column[MethodResult]], summary: Summary
) -> Table | None:
    """One row per method with counted runs; None without any."""
    counted = [result for result in summary.results if result.n]
    return Table.of(name, caption, columns, counted) if counted else None


def _overshoot(evaluations: int) -> float:
    return statistics.expected_maximum_of_normals(evaluations) if evaluations else 0.0


def _contrast_of(test: ClaimTest) -> str:
    claim = test.claim
    contrast = f"{claim.treatment} {MINUS} {claim.baseline}" if claim.baseline else claim.treatment
    quantity = f", {claim.quantity}" if claim.quantity else ""
    return f"{contrast}{quantity}{f' {MINUS} {claim.than:g}' if claim.than else ''}"


def _seeds_needed(contrast: Contrast) -> Cell:
    needed = contrast.seeds_needed
    if needed is None:
        return Cell(NONE, "")
    if contrast.needs_tuning:
        return Cell("tune on more", "")
    return Cell(f"{needed:.0f}", int(needed)) if math.isfinite(needed) else Cell("> 1000", "")


def _mean(result: MethodResult, name: str) -> float:
    values = result.values(name)
    values = values[~pd.isna(values)]
    return float(values.mean()) if len(values) else math.nan


def _range(interval: tuple[float, float] | None) -> str:
    return NONE if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"

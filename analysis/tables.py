"""The tables of a report: what is shown as text, and the numbers behind it for CSV."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis import stats
from analysis.findings import Comparison, Findings, MethodResult
from analysis.grouping import is_seed_axis
from analysis.numbers import (
    NONE,
    count,
    listed,
    p_value,
    percent,
    percent_range,
    plural,
    points,
    points_range,
    seconds,
    significant,
)
from analysis.runs import Study

# Sections of the configuration that say what was computed; the rest is in each run's config.yaml.
SECTIONS = ("task", "model", "engine", "trainer", "warmup", "evaluation")
MOST_SHARED = 48


@dataclass(frozen=True)
class Cell:
    """Text to show, the value to sort by and for CSV, and the method whose colour it bears, if any."""

    text: str
    value: float | str | None = None
    method: str | None = None


@dataclass(frozen=True)
class Table:
    """`columns` holds (header, is numeric); every row has one cell per column."""

    name: str
    caption: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]

    def frame(self) -> pd.DataFrame:
        """The values behind the cells, one column per header."""
        return pd.DataFrame(
            [[cell.text if cell.value is None else cell.value for cell in row] for row in self.rows],
            columns=[header for header, _ in self.columns],
        )


def results_table(findings: Findings) -> Table:
    """The one table beside the verdict."""
    compared = {comparison.label: comparison for comparison in findings.comparisons}
    baselines = {panel.baseline for panel in findings.panels}
    rows = []
    for panel in findings.panels:
        inside = panel.yardstick.evaluations_in_window
        overshoot = stats.expected_maximum_of_normals(inside) if inside else 0.0
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
                    Cell(points(bias), _nan(bias)),
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
    return _by_panel(findings, [f"steps 1 to {panel.yardstick.window}" for panel in findings.panels])


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
            Cell(p_value(c.p_t), _nan(c.p_t)),
            Cell(p_value(c.p_holm), _nan(c.p_holm)),
            Cell(p_value(c.p_sign_flip), _nan(c.p_sign_flip)),
            Cell(NONE if math.isnan(c.improvement) else f"{c.improvement:.2f}", _nan(c.improvement)),
            Cell(points(c.smallest_resolvable).lstrip("+"), _nan(c.smallest_resolvable)),
            Cell(_pairs_needed(c), c.pairs_needed if c.pairs_needed is not None else ""),
        )
        for c in findings.comparisons
    )
    return Table(
        "comparisons",
        "Paired comparisons of final accuracy. Resolvable: the true difference, in points, that this many "
        "pairs find with probability 0.8. Pairs needed: for the difference seen, at its spread. "
        "Improvement: probability that a run of the method beats a run of the baseline.",
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


def stability_table(findings: Findings) -> Table | None:
    """KL and masking per method, beside the interquartile mean and the area under the curve."""
    results = [result for result in findings.results if result.n]
    if not results:
        return None
    rows = tuple(
        (
            Cell(result.label, method=result.group.method),
            *(
                Cell(significant(_mean(result, name)), _nan(_mean(result, name)))
                for name in ("kl_median", "kl_p90")
            ),
            Cell(percent(_mean(result, "masked_share")), _nan(_mean(result, "masked_share"))),
            _estimate_cell(result.area, percent),
            Cell(percent(result.interquartile), _nan(result.interquartile)),
            Cell(_bootstrap(result), "" if result.interquartile_interval is None else _bootstrap(result)),
            Cell(
                points(_mean(result, "evaluation_stderr")).lstrip("+±"),
                _nan(_mean(result, "evaluation_stderr")),
            ),
            Cell(f"{result.diverged} of {result.shown}", result.diverged),
        )
        for result in results
    )
    return Table(
        "stability",
        "Stability per method, means over seeds. KL: k3 estimate from the rollout policy in nats per "
        "token, median and 90th percentile over steps. Area: mean height of the accuracy curve. Evaluation "
        "error: binomial standard error of one evaluation, in points.",
        (
            ("method", False),
            ("KL median", True),
            ("KL 90th percentile", True),
            ("tokens masked", True),
            ("area under curve", True),
            ("interquartile mean", True),
            ("bootstrap 95%", True),
            ("evaluation error", True),
            ("diverged", True),
        ),
        rows,
    )


def differences_table(study: Study) -> Table | None:
    """Configuration keys whose value differs between methods, one column per method; None when none does."""
    groups = [group.label for group in study.grouping.groups]
    first = {
        label: rows.iloc[0]
        for label in groups
        if len(rows := study.runs[(study.runs["group"] == label) & _has_config(study)])
    }
    if len(first) < 2:
        return None
    keys = [
        str(column)
        for column in study.runs.columns
        if str(column).startswith("config.") and not is_seed_axis(str(column).removeprefix("config."))
    ]
    lines: list[tuple[Cell, ...]] = []
    for key in keys:
        values = [setting(first[label][key]) for label in first]
        if len(set(values)) > 1:
            lines.append((Cell(key.removeprefix("config.")), *(Cell(value) for value in values)))
    if not lines:
        return None
    return Table(
        "configuration",
        "Configuration keys that differ between methods; a dash means that the method does not set the key.",
        (("key", False), *((label, False) for label in first)),
        tuple(lines),
    )


def shared_settings(study: Study) -> list[tuple[str, str]]:
    """(key, value) of the settings of task, model, engine, trainer and warm-up that all runs share."""
    configured = study.runs[_has_config(study)]
    out = []
    for column in map(str, study.runs.columns):
        key = column.removeprefix("config.")
        if not column.startswith("config.") or key.split(".")[0] not in SECTIONS or is_seed_axis(key):
            continue
        values = {setting(value) for value in configured[column]}
        if len(values) == 1 and NONE not in values:
            out.append((key, values.pop()))
    return out[:MOST_SHARED]


def budget_table(study: Study) -> Table:
    """What each method was given: tokens, updates, wall time."""
    rows = []
    for group in study.grouping.groups:
        runs = study.runs[study.runs["group"] == group.label]
        timings = study.timings[study.timings["run_id"].isin(runs.index)]
        shares = [timings[key].sum() if key in timings else 0.0 for key in ("rollout_s", "train_s", "eval_s")]
        total = sum(shares)
        split = " / ".join(f"{100 * share / total:.0f}" for share in shares) + "%" if total > 0 else NONE
        rows.append(
            (
                Cell(group.label, method=group.method),
                Cell(str(len(runs)), len(runs)),
                *(
                    Cell(count(runs[column].sum(min_count=1)), _nan(runs[column].sum(min_count=1)))
                    for column in ("updates", "tokens_sampled", "tokens_trained")
                ),
                Cell(seconds(runs["duration_s"].sum(min_count=1)), _nan(runs["duration_s"].sum(min_count=1))),
                Cell(seconds(runs["duration_s"].mean()), _nan(runs["duration_s"].mean())),
                Cell(split),
            )
        )
    return Table(
        "budget",
        "What was spent, summed over the runs of a method. Split: share of the measured time in rollout, "
        "training and evaluation.",
        (
            ("method", False),
            ("runs", True),
            ("optimizer updates", True),
            ("tokens sampled", True),
            ("tokens trained", True),
            ("wall time", True),
            ("per run", True),
            ("rollout / train / eval", True),
        ),
        tuple(rows),
    )


def runs_table(study: Study, findings: Findings) -> Table:
    """Every run with its status, the failed and unfinished ones included."""
    finals = {run.run_id: run for result in findings.results for run in result.runs}
    rows = []
    for run_id, run in study.runs.iterrows():
        result = finals.get(str(run_id))
        rows.append(
            (
                Cell(str(run_id)[:12]),
                Cell(str(run["group"]), method=str(run["method"])),
                Cell(str(run["seeds"]) or NONE),
                Cell(str(run["status"]).lower()),
                Cell(_steps(run), float(run["last_step"])),
                Cell(percent(run["starting_accuracy"]), _nan(run["starting_accuracy"])),
                Cell(percent(result.final if result else None), result.final if result else ""),
                Cell(percent(result.best if result else None), _nan(result.best) if result else ""),
                Cell(seconds(run["duration_s"]), _nan(run["duration_s"])),
                Cell("yes" if run["counted"] else "no"),
                Cell(str(run["reason"]) if isinstance(run["reason"], str) else ""),
            )
        )
    return Table(
        "runs",
        f"Every run of the study ({plural(len(rows), 'run')}). Counted: enters the statistics.",
        (
            ("run", False),
            ("method", False),
            ("seeds", False),
            ("status", False),
            ("steps", True),
            ("start", True),
            ("final", True),
            ("best", True),
            ("time", True),
            ("counted", False),
            ("reason", False),
        ),
        tuple(rows),
    )


def setting(value: object) -> str:
    """A configuration value as text; a dash where the run has none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _by_panel(findings: Findings, texts: list[str]) -> str:
    if len(set(texts)) == 1:
        return texts[0]
    named = [f"{text} for {panel.panel}" for panel, text in zip(findings.panels, texts, strict=True)]
    return listed(named)


def _has_config(study: Study) -> pd.Series:
    columns = [column for column in study.runs.columns if str(column).startswith("config.")]
    return study.runs[columns].notna().any(axis=1)


def _estimate_cell(estimate: stats.Estimate | None, show: Callable[[float | None], str]) -> Cell:
    return Cell(NONE, "") if estimate is None else Cell(show(estimate.mean), estimate.mean)


def _difference_cell(comparison: Comparison | None, is_baseline: bool) -> Cell:
    if is_baseline or comparison is None or comparison.difference is None:
        return Cell(NONE, "")
    return Cell(points(comparison.difference.mean), comparison.difference.mean)


def _low_high(estimate: stats.Estimate | None) -> str:
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


def _bootstrap(result: MethodResult) -> str:
    if result.interquartile_interval is None:
        return NONE
    low, high = result.interquartile_interval
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _steps(run: pd.Series) -> str:
    planned = run["steps"]
    done = int(run["last_step"])
    return f"{done}" if pd.isna(planned) else f"{done} of {int(planned)}"


def _nan(value: float | None) -> float | str:
    return "" if value is None or pd.isna(value) else float(value)

"""The verdict and the captions in words. A winner is named only where the statistics name one."""

from __future__ import annotations

import math

import pandas as pd

from cppo_lab.analysis.contrasts import POWER, Comparison
from cppo_lab.analysis.formatting import (
    listed,
    magnitude,
    percent,
    percent_range,
    plural,
    points,
    points_range,
    size_in_points,
)
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.tables import final_in_words, threshold_in_words, window_in_words
from cppo_lab.analysis.run_table import MethodResult
from cppo_lab.analysis.summary import Findings, PanelFindings

# What decides which tokens are trained on and how they are weighed, and a setting that suits every method.
TOKEN_CHOICES = {"algo.dynamic_sampling.kind": "skip", "algo.aggregation.kind": "token_mean"}

# What a run is that neither finished nor failed.
_STATES = {
    "RUNNING": "still running",
    "INTERRUPTED": "interrupted",
    "PENDING": "not started, or deleted",
    "MISSING": "missing: the folder is gone",
    "UNKNOWN": "unreadable",
}

# An interval wider than this share of the whole range says nothing worth a place in the first sentence.
USELESS_WIDTH = 0.5


def verdict(panel: PanelFindings) -> list[str]:
    """Sentences for one panel, the most important first."""
    counted = [result for result in panel.results if result.final is not None]
    if not counted:
        return [
            "No run has finished yet, so there is no final accuracy to compare; the curves show what was "
            "seen."
        ]
    sentences = [_leader(panel, counted)]
    sentences += _against_baseline(panel)
    sentences.append(_collapses(counted))
    return sentences


def power_statements(panel: PanelFindings) -> list[str]:
    """For each comparison to the baseline: what its pairs can resolve, and what the difference seen would take."""
    names = {result.label: result.group.method for result in panel.results}
    return [
        f"{names[comparison.label]} against {names[comparison.baseline]}: {_power(comparison)}"
        for comparison in panel.comparisons
    ]


def panel_in_words(study: Study, panel: str) -> str:
    """The title of a panel; where panels are models of several sizes, with the number of parameters."""
    known = study.runs.dropna(subset=["parameters"])
    sizes = known.loc[known["panel"] == panel, "parameters"].unique()
    if known["parameters"].nunique() < 2 or len(sizes) != 1:
        return panel
    return f"{panel} ({magnitude(float(sizes[0]))} parameters)"


def warning(study: Study) -> str:
    """What must be read before anything else in a study of runs that are not comparable."""
    said = f"{study.mark[0].upper()}{study.mark[1:]}."
    return f"{said} Runs that answer different questions stand beside each other here."


def caveats(study: Study, findings: Findings) -> list[str]:
    """What limits the verdict: runs that are not comparable, few seeds, one starting policy, runs not counted."""
    out: list[str] = [f"Not comparable: {difference.sentence}." for difference in study.incomparable]
    sizes = [result.n for result in findings.results if result.n]
    if sizes and min(sizes) == 1:
        lone = [result.label for result in findings.results if result.n == 1]
        out.append(
            f"{listed(lone)}: a single seed counts, so there is no interval and nothing can be resolved."
        )
    if sizes and 1 < max(sizes) <= 3:
        out.append(
            f"With {max(sizes)} seeds per method the intervals are wide and only very large differences "
            "can be resolved."
        )
    policies = study.runs[["starting_recipe", "starting_seed"]].dropna().drop_duplicates()
    if len(policies) == 1 and max(sizes, default=0) > 1:
        out.append(
            "All runs share one starting policy: the intervals describe new run seeds from it, "
            "and understate the spread over new starting policies."
        )
    elif sizes and 1 < len(policies) < max(sizes):
        out.append(
            f"The runs share {len(policies)} starting policies: runs from the same one are not independent, "
            "so the intervals are somewhat too narrow."
        )
    out += _different_tokens(study)
    diverged = study.runs[study.runs["diverged"]]
    if len(diverged):
        out.append(
            f"{plural(len(diverged), 'run')} diverged ({_names(diverged)}) and "
            f"{'counts' if len(diverged) == 1 else 'count'} with the last evaluations reached."
        )
    failed = study.runs[(study.runs["status"] == "FAILED") & ~study.runs["diverged"]]
    if len(failed):
        out.append(f"{plural(len(failed), 'run')} failed without diverging ({_names(failed)}); not counted.")
    open_runs = study.runs[~study.runs["status"].isin(["FINISHED", "FAILED"])]
    for status, runs in open_runs.groupby("status", sort=True):
        out.append(
            f"{plural(len(runs), 'run')} {_STATES.get(str(status), str(status).lower())} ({_names(runs)}); "
            "shown, not counted."
        )
    silent = study.runs[(study.runs["status"] == "FINISHED") & ~study.runs["counted"]]
    if len(silent):
        out.append(
            f"{plural(len(silent), 'finished run')} recorded no held-out accuracy ({_names(silent)}); not "
            "counted."
        )
    return out + list(study.notes)


def method_of_statistics(findings: Findings) -> list[str]:
    """How the numbers were made, for the reader who checks."""
    lines = [
        f"Final accuracy is {final_in_words(findings)} of a run. Intervals are 95% Student t intervals over seeds "
        "at every n: a bootstrap over two to five seeds can only redraw those few values and covers too rarely. "
        "They are cut to 0 to 100%. They describe new seeds on the same held-out problems.",
        "Two or three seeds can agree by chance better than their evaluations are exact. The spread used "
        "for an interval or test is therefore never smaller than the binomial error of the evaluations "
        "behind it.",
        f"Best in window is the highest of a run's evaluations within {window_in_words(findings)}, averaged over "
        "seeds. This is the matched window that the paper selects in: from the starting policy to the sweep's window "
        "or, without one, to where the shortest finished run ends. Picking the best of several noisy evaluations "
        "overshoots; the column beside it says by how much it would do so if accuracy were flat. The final value has "
        "no such bias.",
        "Differences are paired: same run seed and same starting policy on both sides, Student t interval "
        "and t test over pairs, Holm-adjusted over the comparisons to the baseline. A difference is called "
        "resolved only if its interval excludes zero and the adjusted p is below 0.05. The sign-flip p "
        "cannot fall below 2/2ⁿ. A lead is called resolved only if it is so over every other method: "
        "against the baseline as above, against the others Holm-adjusted over all pairs of methods, since "
        "who leads is known only after looking.",
        "Power is that of the t test at 0.05 over the number of comparisons, the level of Holm's first step, with the "
        "spread seen taken for the true one. The difference seen is uncertain too, and so is what it would take.",
        "The threshold is halfway from the mean start to the highest mean final accuracy of a panel "
        f"({threshold_in_words(findings)}), the same for all its methods. Counted is the first evaluation that reaches "
        "it; the step given is the Kaplan-Meier median: by when half of the runs had got there, or > and the window's "
        "end where fewer did. A run that diverged before it never did.",
        "A run has collapsed when its final accuracy is below half of its starting accuracy. The interval of the share "
        "of such runs is Clopper and Pearson's, which covers 95% or more at every n.",
        "KL is summarised by its median and 90th percentile over steps: its maximum is made by single rare tokens.",
    ]
    if any(result.n >= 4 for result in findings.results):
        lines.append("Interquartile means carry stratified bootstrap percentile intervals (2,000 draws).")
    if any(0 < result.n < 4 for result in findings.results):
        lines.append(
            "Below four seeds the interquartile mean is just the mean, and is not given an interval."
        )
    return lines


def _power(comparison: Comparison) -> str:
    seen, least = comparison.difference, comparison.smallest_resolvable
    if seen is None:
        return "no pairs, so nothing can be said."
    if not math.isfinite(least):
        return f"{'one pair has' if seen.n < 2 else 'the pairs have'} no spread, so nothing can be said."
    pairs = plural(seen.n, "pair")
    if least < 1:
        text = (
            f"{pairs} would resolve a true difference of {size_in_points(least)} points or more with probability "
            f"{POWER}, at the spread seen"
        )
    else:
        text = (
            f"at the spread seen {pairs} would resolve no difference with probability {POWER}, however large"
        )
    if not seen.mean:
        return f"{text}; no difference was seen."
    needed = "more than 1,000 pairs"
    if comparison.pairs_needed is not None:
        needed = plural(comparison.pairs_needed, "pair")
    return f"{text}; a true difference as seen ({points(seen.mean)}) would take {needed}."


def _different_tokens(study: Study) -> list[str]:
    """One sentence where methods of the same panel differ in TOKEN_CHOICES, none where they are alike."""
    said = []
    for key in TOKEN_CHOICES:
        column = f"config.{key}"
        if column not in study.runs:
            continue
        known = study.runs.dropna(subset=[column])
        if not (known.groupby("panel")[column].nunique() > 1).any():
            continue
        methods = known.groupby(column, sort=False)["method"].unique()
        said.append(
            f"{key} ({'; '.join(f'{value}: {listed(list(names))}' for value, names in methods.items())})"
        )
    if not said:
        return []
    alike = " ".join(f"{key}={value}" for key, value in TOKEN_CHOICES.items())
    return [
        f"The methods differ in {listed(said)}: averages over trained tokens (KL, entropy, masked share) rest "
        f"on different tokens. To compare trust regions alone, set it alike, for example {alike}."
    ]


def _leader(panel: PanelFindings, counted: list[MethodResult]) -> str:
    if panel.leader is None or panel.leader.final is None:
        only = counted[0]
        return (
            f"{only.group.method} ended at "
            f"{percent(only.final.mean if only.final else None)}{_interval_and_n(only)}, {_gain(only)}. "
            "There is no other method to compare with."
        )
    leader = panel.leader
    reached = (
        f"{leader.group.method} ended highest, at {percent(leader.final.mean if leader.final else None)}"
    )
    gain = _gain(leader)
    if panel.winner is not None:
        return (
            f"{reached}{_interval_and_n(leader)}, {gain}, and its lead over every other method is resolved."
        )
    names = {result.label: result.group.method for result in panel.results}
    rest = [names[label] for label in panel.not_resolved_from]
    level = _level_with(leader, counted)
    if level:
        highest = "" if len(level) == len(counted) else ", the highest"
        behind = [name for name in rest if name not in {result.group.method for result in level}]
        lead = f"; a lead over {listed(behind)} is not resolved" if behind else ""
        return (
            f"{listed([result.group.method for result in level])} ended level at "
            f"{percent(leader.final.mean if leader.final else None)}{highest}{lead}."
        )
    return f"{reached}{_interval_and_n(leader)}, {gain}; its lead over {listed(rest)} is not resolved."


def _level_with(leader: MethodResult, counted: list[MethodResult]) -> list[MethodResult]:
    """The leader and who ended level with it at the precision shown; empty when nobody did."""
    if leader.final is None:
        return []
    shown = percent(leader.final.mean)
    level = [result for result in counted if result.final is not None and percent(result.final.mean) == shown]
    return level if len(level) > 1 else []


def _gain(result: MethodResult) -> str:
    if result.gain is None:
        return "its starting accuracy is not known"
    side = "below" if result.gain.mean < 0 else "above"
    return f"{points(abs(result.gain.mean)).lstrip('+±')} points {side} its starting policy"


def _interval_and_n(result: MethodResult) -> str:
    if result.final is None or not result.final.has_interval:
        return f" (n = {result.n})"
    if result.final.high - result.final.low > USELESS_WIDTH:
        return f" (n = {result.n}, too few seeds for a useful interval)"
    return f" (95% interval {percent_range(result.final)}, n = {result.n})"


def _against_baseline(panel: PanelFindings) -> list[str]:
    if panel.baseline is None or not panel.comparisons:
        return []
    names = {result.label: result.group.method for result in panel.results}
    base = names.get(panel.baseline, panel.baseline)
    sentences = []
    for direction, word in (("higher", "above"), ("lower", "below")):
        for comparison in panel.comparisons:
            if comparison.verdict == direction and comparison.difference is not None:
                amount = size_in_points(comparison.difference.mean)
                sentences.append(
                    f"{names[comparison.label]} ended {amount} points {word} {base} "
                    f"({points_range(comparison.difference)}, {plural(comparison.pairs, 'pair')})."
                )
    open_ones = [comparison for comparison in panel.comparisons if not comparison.resolved]
    if open_ones:
        said = [f"{names[c.label]} ({_seen(c)})" for c in open_ones]
        sentences.append(f"Not resolved from {base}: {'; '.join(said)}.")
    return sentences


def _seen(comparison: Comparison) -> str:
    if comparison.difference is None:
        return "no run shares its seeds and starting policy"
    text = f"{points(comparison.difference.mean)} points, {plural(comparison.pairs, 'pair')}"
    if comparison.difference.n < 2:
        return text
    if comparison.pairs_needed is None:
        return f"{text}; more than 1,000 would be needed at this spread"
    if comparison.pairs_needed > comparison.pairs:
        return f"{text}; about {comparison.pairs_needed} would be needed at this spread"
    return text


def _collapses(counted: list[MethodResult]) -> str:
    fallen = [result for result in counted if result.collapses]
    if not fallen:
        return "No run collapsed below half of its starting accuracy."
    said = [f"{result.group.method} in {result.collapses} of {plural(result.n, 'run')}" for result in fallen]
    rest = "" if len(fallen) == len(counted) else "; no run of the other methods did"
    return f"Collapsed below half of the starting accuracy: {listed(said)}{rest}."


def _names(runs: pd.DataFrame) -> str:
    rows = [f"{group} {seeds}".strip() for group, seeds in zip(runs["group"], runs["seeds"], strict=True)]
    return ", ".join(rows[:6]) + (f" and {len(rows) - 6} more" if len(rows) > 6 else "")

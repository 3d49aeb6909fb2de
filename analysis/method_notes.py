"""What limits a report's verdict, and how its numbers were computed, in words."""

from __future__ import annotations

import math

import pandas as pd

from cppo_lab.analysis.formatting import listed, percent, plural
from cppo_lab.analysis.frozen import broken_in_words
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.single_rates import panels_by_regime
from cppo_lab.analysis.summary import Summary

# What decides which tokens are trained on and how they are weighted, and a setting that suits every method.
TOKEN_CHOICES = {"algo.dynamic_sampling.kind": "skip", "algo.aggregation.kind": "token_mean"}
_STATES = {
    "RUNNING": "still running",
    "INTERRUPTED": "interrupted",
    "PENDING": "not started, or deleted",
    "MISSING": "missing, its folder is gone",
    "UNKNOWN": "unreadable",
}


def warning(study: Study) -> str:
    """The first sentence of a report on runs that are not comparable."""
    said = f"{study.mark[0].upper()}{study.mark[1:]}."
    return f"{said} These runs answer different questions."


def caveats(study: Study, summary: Summary) -> list[str]:
    """What limits the verdict: runs that are not comparable, few seeds, one starting policy, runs not counted."""
    out: list[str] = [f"Not comparable: {difference.sentence}." for difference in study.incomparable]
    out += [broken] if (broken := broken_in_words(study.frozen, _began(study))) else []
    sizes = [result.n for result in summary.results if result.n]
    if sizes and min(sizes) == 1:
        out.append(
            f"{listed(_lone(summary))}: a single seed counts, so there is no interval and nothing can be resolved."
        )
    if sizes and max(sizes) == 2:
        out.append("Two seeds per method give no interval, and resolve no difference; three give wide ones.")
    if sizes and max(sizes) == 3:
        out.append(
            "With three seeds per method the intervals are wide and only very large differences can be resolved."
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
    out += _idle_regions(study)
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


def _lone(summary: Summary) -> list[str]:
    """What has a single seed: methods by their settings, or by the regime where all of its settings are compared."""
    settings = {
        panel: regime for regime, panels in panels_by_regime(summary).items() for panel in panels if regime
    }
    lone = [result for result in summary.results if result.n == 1]
    named = [
        f"{result.group.method}, {settings[result.group.panel]}"
        if result.group.panel in settings
        else result.label
        for result in lone
    ]
    return [
        name if named.count(name) == 1 else f"{name} ({plural(named.count(name), 'setting')})"
        for name in dict.fromkeys(named)
    ]


def _began(study: Study) -> str | None:
    """When the first run of a study began."""
    began = sorted(str(time) for time in study.runs["started_at"].dropna())
    return began[0] if began else None


def _adjustment(summary: Summary) -> str:
    looks = next((panel.looks for panel in summary.panels if panel.looks is not None), None)
    if looks is None:
        return (
            "Holm-adjusted over the contrasts with the baseline; contrasts that a claim of the sweep is about are "
            "adjusted among the claims instead."
        )
    at = listed([str(n) for n in looks.pairs])
    return (
        f"looked at when {at} pairs were there, until a difference was settled: resolved, or within "
        f"{100 * looks.margin:g} points of zero. Intervals and p values hold at all looks together (a group-sequential "
        f"design: 5% are shared by {plural(looks.family, 'contrast')} and spent in proportion to the pairs)."
    )


def method_of_statistics(summary: Summary) -> list[str]:
    """How the numbers were computed, for the reader who checks."""
    over_pairs = "with the 5% shared equally" if summary.has_looks else "Holm-adjusted"
    power = "one t test" if summary.has_looks else "the t test at the level of Holm's first step"
    lines = [
        f"Final accuracy is {final_in_words(summary)} of a run. Intervals are 95% Student t intervals over seeds at "
        "every n (a bootstrap over two to five seeds can only redraw those few values and covers too rarely), cut to 0 "
        "to 100%. They describe new seeds on the same held-out problems.",
        "Two or three seeds can agree by chance more closely than their evaluations are exact. The spread used in an "
        "interval or test is therefore never smaller than the binomial error of the evaluations behind it.",
        f"Best in window is the highest of a run's evaluations within {window_in_words(summary)}, averaged over seeds. "
        "This is the matched window of the paper: from the starting policy to the sweep's window or, without one, to "
        "the end of the shortest finished run. The best of several noisy evaluations is biased upwards; the column "
        "beside it gives that bias for a flat accuracy curve. The final value has no such bias.",
        "Differences are paired by run seed and starting policy, with a Student t interval and t test over pairs, "
        f"{_adjustment(summary)} A difference is resolved only if its interval excludes zero and the adjusted p is "
        "below 0.05. The sign-flip p cannot fall below 2/2ⁿ. A lead is resolved only if it is resolved over every "
        f"other method: against the baseline as above, against the others {over_pairs} over all pairs of methods, "
        "since the leader is known only afterwards.",
        f"Power is that of {power}, 0.05 over the number of contrasts, taking the "
        "observed spread for the true one. Both the observed difference and the seeds it needs are uncertain.",
        "The threshold is halfway from the mean start to the highest mean final accuracy of a panel "
        f"({threshold_in_words(summary)}), the same for all its methods. A run reaches it at the first evaluation at "
        "or above it. The step given is the Kaplan-Meier median: by when half of the runs had reached it, or > and the "
        "end of the window where fewer did. A run that diverged before never did.",
        "A run has collapsed when its final accuracy is below half of its starting accuracy. The interval of the share "
        "of such runs is Clopper and Pearson's, which covers 95% or more at every n.",
        "KL is summarised by its median and 90th percentile over steps: its maximum comes from single rare tokens.",
    ]
    if any(result.n >= 4 for result in summary.results):
        lines.append("Interquartile means have stratified bootstrap percentile intervals (2,000 draws).")
    if any(0 < result.n < 4 for result in summary.results):
        lines.append("Below four seeds the interquartile mean equals the mean and has no interval.")
    return lines


def final_in_words(summary: Summary) -> str:
    """Which evaluations make the final accuracy, panel by panel where they differ."""
    return _by_panel(
        summary,
        [
            f"the mean of the last {panel.scoring.final_evaluations} evaluations"
            if panel.scoring.final_evaluations > 1
            else "the last evaluation"
            for panel in summary.panels
        ],
    )


def window_in_words(summary: Summary) -> str:
    """Steps among which the best evaluation is looked for, panel by panel where they differ."""
    return _by_panel(summary, [f"steps 0 to {panel.scoring.window}" for panel in summary.panels])


def threshold_in_words(summary: Summary) -> str:
    """The accuracy that the steps to a threshold are counted to, panel by panel where they differ."""
    return _by_panel(
        summary,
        [
            percent(panel.scoring.threshold)
            if math.isfinite(panel.scoring.threshold)
            else "no threshold (no method ended above its start)"
            for panel in summary.panels
        ],
    )


def _by_panel(summary: Summary, texts: list[str]) -> str:
    """The text, or where they differ those of the panels with counted runs."""
    told = [
        (panel, text)
        for panel, text in zip(summary.panels, texts, strict=True)
        if any(result.n for result in panel.results)
    ]
    if len({text for _, text in told}) < 2:
        return told[0][1] if told else texts[0]
    return listed([f"{text} for {panel.panel}" for panel, text in told])


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


def _idle_regions(study: Study) -> list[str]:
    """What runs say of a trust region that never acted (`warnings` of run.json), each sentence once."""
    groups: dict[str, list[str]] = {}
    for run_id, info in study.provenance.items():
        said = info.get("warnings")
        for sentence in said if isinstance(said, list) else []:
            groups.setdefault(str(sentence), []).append(str(study.runs.at[run_id, "group"]))
    return [
        f"{sentence} ({plural(len(names), 'run')} of {listed(list(dict.fromkeys(names)))})"
        for sentence, names in groups.items()
    ]


def _names(runs: pd.DataFrame) -> str:
    rows = [f"{group} {seeds}".strip() for group, seeds in zip(runs["group"], runs["seeds"], strict=True)]
    return ", ".join(rows[:6]) + (f" and {len(rows) - 6} more" if len(rows) > 6 else "")

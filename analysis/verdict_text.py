"""Verdicts in words. A winner is named only where the statistics name one."""

from __future__ import annotations

import math

from cppo_lab.analysis.claim_tests import FAILS, INCONCLUSIVE, ClaimTest
from cppo_lab.analysis.contrasts import POWER, Contrast
from cppo_lab.analysis.formatting import (
    listed,
    magnitude,
    percent,
    percent_range,
    plural,
    points,
    points_range,
    signed,
    size_in_points,
)
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.analysis.sequential import Looks, decision
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.summary import MethodResult, PanelSummary

# An interval wider than this share of the whole range says nothing worth a place in the first sentence.
USELESS_WIDTH = 0.5
TUNE_MORE = "more tuning seeds, not test seeds alone,"
FELL = "†"
"""Marks a difference of which one method ended below its starting policy."""


def verdict(panel: PanelSummary) -> list[str]:
    """Sentences for one panel, the most important first."""
    counted = [result for result in panel.results if result.final is not None]
    if not counted:
        return ["No run has finished yet, so there is no final accuracy to compare."]
    return [_leader(panel, counted), *_against_baseline(panel), *_looks(panel), _collapses(counted)]


def power_statements(panel: PanelSummary) -> list[str]:
    """What the pairs of each contrast with the baseline can detect, and the seeds that its difference needs."""
    names = {result.label: result.group.method for result in panel.results}
    return [
        f"{names[contrast.treatment]} against {names[str(contrast.baseline)]}: {_power(contrast)}"
        for contrast in panel.contrasts
    ]


def claim_sentence(test: ClaimTest) -> str:
    """A claim of the sweep with its verdict, as `CPPO is above DPPO (model=s): inconclusive at n = 84; ...`."""
    place = f" ({test.panel})" if test.panel else ""
    if test.estimate is None:
        return f"{test.claim.says}{place}: {test.remark or 'no runs yet'}."
    seen = claim_estimate(test.estimate, test.claim.is_of_accuracy)
    size = f"n = {claim_seeds(test)}"
    if test.verdict == INCONCLUSIVE:
        needed = _needed(test)
        return f"{test.claim.says}{place}: inconclusive at {size}, {seen}{f'; {needed}' if needed else ''}."
    return f"{test.claim.says}{place}: {claim_verdict(test)}, {seen}, {size}."


def claim_verdict(test: ClaimTest) -> str:
    """The verdict and its kind, or the seeds that a conclusive one would need."""
    if test.repeats is not None:
        return (
            f"{claim_verdict(test.repeats)}, on the {test.repeats.contrast.n} seeds of {test.repeats.sweep}"
        )
    if test.verdict == INCONCLUSIVE:
        needed = _needed(test)
        return f"inconclusive ({needed})" if needed else "inconclusive"
    remarks = [_disagreement(test)] if test.verdict == FAILS else []
    remarks += ["interim"] if test.is_interim else []
    return f"{test.verdict} ({'; '.join(remarks)})" if remarks else test.verdict


def claim_measured(test: ClaimTest, table: RunTable) -> str:
    """The mean and its interval, marked where a method of it ended below its starting policy."""
    if test.estimate is None:
        return test.remark or "not run yet"
    text = claim_estimate(test.estimate, test.claim.is_of_accuracy)
    methods = (test.claim.treatment, test.claim.baseline or test.claim.treatment)
    fell = test.claim.is_of_accuracy and any(_fell(table, test.panel, method) for method in methods)
    return f"{text} {FELL}" if fell else text


def claim_estimate(seen: Estimate, is_of_accuracy: bool = True) -> str:
    """A mean difference and its interval, in points where it is of accuracies."""
    if is_of_accuracy:
        return f"{points(seen.mean)} ({points_range(seen)})" if seen.has_interval else points(seen.mean)
    interval = f" ({signed(seen.low)} to {signed(seen.high)})" if seen.shows_interval else ""
    return f"{signed(seen.mean)}{interval}"


def claim_seeds(test: ClaimTest) -> str:
    """The number of pairs, and how many are planned where some are missing."""
    return f"{test.contrast.n} of {test.planned}" if test.is_interim else str(test.contrast.n)


def _fell(table: RunTable, panel: str, method: str) -> bool:
    gains = [run.final - run.start for run in table.of(panel, method)]
    return bool(gains) and sum(gains) < 0


def _margin(test: ClaimTest) -> str:
    margin = test.claim.margin
    return f"{100 * margin:.0f} points" if test.claim.is_of_accuracy else f"{margin:g}"


def _disagreement(test: ClaimTest) -> str:
    if test.claim.expect == "equal":
        return "different"
    if test.claim.expect == "not zero":
        return f"within {_margin(test)} of zero"
    return "opposite" if test.is_opposite else f"less than {_margin(test)}"


def _needed(test: ClaimTest) -> str:
    """`about 223 seeds to detect it, 60 to exclude 3 points`; empty where no number is known."""
    is_equal = test.claim.expect == "equal"
    counts = (
        (True, test.needed_to_hold, "to show it" if is_equal else "to detect it"),
        (False, test.needed_to_fail, "to detect a difference" if is_equal else f"to exclude {_margin(test)}"),
    )
    known = [
        (f"about {count:.0f}" if math.isfinite(count) else "over 1,000", purpose)
        for to_hold, count, purpose in counts
        if count is not None and not test.needs_tuning(to_hold)
    ]
    beyond = [purpose for to_hold, count, purpose in counts if count and test.needs_tuning(to_hold)]
    told = [f"{count}{'' if place else ' seeds'} {what}" for place, (count, what) in enumerate(known)]
    return ", ".join([*told, *([f"{TUNE_MORE} {' or '.join(beyond)}"] if beyond else [])])


def panel_title(study: Study, panel: str) -> str:
    """The title of a panel; where panels are models of several sizes, with the number of parameters."""
    known = study.runs.dropna(subset=["parameters"])
    sizes = known.loc[known["panel"] == panel, "parameters"].unique()
    if known["parameters"].nunique() < 2 or len(sizes) != 1:
        return panel
    return f"{panel} ({magnitude(float(sizes[0]))} parameters)"


def _power(contrast: Contrast) -> str:
    seen, least = contrast.estimate, contrast.smallest_detectable
    if seen is None:
        return "no pairs, so power is unknown."
    if not math.isfinite(least):
        return f"{'one pair has' if seen.n < 2 else 'the pairs have'} no spread, so power is unknown."
    pairs, power = plural(seen.n, "pair"), f"{100 * POWER:.0f}% power"
    if least < 1:
        text = f"{pairs} detect a true difference of {size_in_points(least)} points or more with {power}"
    else:
        text = f"{pairs} detect no difference with {power}, however large"
    needed = contrast.seeds_needed
    if needed is None:
        return f"{text}; no difference was observed."
    if contrast.needs_tuning:
        return (
            f"{text}; the observed difference ({points(seen.mean)} points) cannot be detected by more test seeds "
            "alone: tuning on more seeds would be needed."
        )
    return f"{text}; detecting the observed difference ({points(seen.mean)} points) takes {_seeds(needed)}."


def _leader(panel: PanelSummary, counted: list[MethodResult]) -> str:
    leader = panel.leader
    if leader is None or leader.final is None:
        only = counted[0]
        ended = percent(only.final.mean if only.final else None)
        return (
            f"{only.group.method} ended at {ended}{_interval_and_n(only)}, {_gain(only)}. "
            "There is no other method to compare it with."
        )
    height = percent(leader.final.mean)
    reached = f"{leader.group.method} ended highest, at {height}{_interval_and_n(leader)}, {_gain(leader)}"
    if panel.winner is not None:
        return f"{reached}; its lead over every other method is resolved."
    names = {result.label: result.group.method for result in panel.results}
    rest = [names[label] for label in panel.not_resolved_from]
    level = [
        result for result in counted if result.final is not None and percent(result.final.mean) == height
    ]
    if len(level) < 2:
        return f"{reached}; its lead over {listed(rest)} is not resolved."
    tied = [result.group.method for result in level]
    highest = "" if len(level) == len(counted) else ", the highest"
    behind = [name for name in rest if name not in tied]
    lead = f"; a lead over {listed(behind)} is not resolved" if behind else ""
    return f"{listed(tied)} ended level at {height}{highest}{lead}."


def _gain(result: MethodResult) -> str:
    if result.gain is None:
        return "its starting accuracy is not known"
    side = "below" if result.gain.mean < 0 else "above"
    return f"{points(abs(result.gain.mean)).lstrip('+±')} points {side} its starting policy"


def _interval_and_n(result: MethodResult) -> str:
    if result.final is None or not result.final.has_interval:
        return f" (n = {result.n})"
    if not result.final.shows_interval:
        return f" ({percent_range(result.final)})"
    if result.final.high - result.final.low > USELESS_WIDTH:
        return f" (n = {result.n}, too few seeds for a useful interval)"
    return f" (95% CI {percent_range(result.final)}, n = {result.n})"


def _against_baseline(panel: PanelSummary) -> list[str]:
    if panel.baseline is None or not panel.contrasts:
        return []
    names = {result.label: result.group.method for result in panel.results}
    base = names.get(panel.baseline, panel.baseline)
    sentences = []
    for direction, side in (("higher", "above"), ("lower", "below")):
        for contrast in panel.contrasts:
            if contrast.verdict == direction and contrast.estimate is not None:
                sentences.append(
                    f"{names[contrast.treatment]} ended {size_in_points(contrast.estimate.mean)} points {side} {base} "
                    f"({points_range(contrast.estimate)}, n = {contrast.n})."
                )
    unresolved = [contrast for contrast in panel.contrasts if not contrast.resolved]
    if unresolved:
        told = [f"{names[contrast.treatment]} ({seen_in_words(contrast)})" for contrast in unresolved]
        sentences.append(f"Inconclusive against {base}: {'; '.join(told)}.")
    return sentences


def _looks(panel: PanelSummary) -> list[str]:
    """When the seeds of a sweep that adds them settled each contrast."""
    looks = panel.looks
    if looks is None or panel.baseline is None:
        return []
    names = {result.label: result.group.method for result in panel.results}
    told = [
        f"{names[each.treatment]} {decision_in_words(each, looks)}, n = {each.n}" for each in panel.contrasts
    ]
    said = (
        f"Seeds were added until each difference from {names[panel.baseline]} was settled, {looks.pairs[-1]} at most: "
        f"{'; '.join(told)}."
    )
    count = len(looks.pairs)
    return [f"{said} Their intervals hold at all {count} looks together." if count > 1 else said]


def decision_in_words(contrast: Contrast, looks: Looks) -> str:
    """`above`, `below`, `within 3 points` or `open`."""
    found = decision(contrast, looks.margin)
    return f"within {100 * looks.margin:g} points" if found == "equivalent" else found


def seen_in_words(contrast: Contrast) -> str:
    if contrast.estimate is None:
        return "no run shares its seeds and starting policy"
    text = f"{points(contrast.estimate.mean)} points at n = {contrast.n}"
    if contrast.n < 2 or contrast.seeds_needed is None or contrast.seeds_needed <= contrast.n:
        return text
    if contrast.needs_tuning:
        return f"{text}; {TUNE_MORE} to detect it"
    return f"{text}; {_seeds(contrast.seeds_needed)} to detect it"


def _seeds(needed: float) -> str:
    return f"about {needed:.0f} seeds" if math.isfinite(needed) else "over 1,000 seeds"


def _collapses(counted: list[MethodResult]) -> str:
    fallen = [result for result in counted if result.collapses]
    if not fallen:
        return "No run collapsed below half of its starting accuracy."
    said = [f"{result.group.method} in {result.collapses} of {plural(result.n, 'run')}" for result in fallen]
    rest = "" if len(fallen) == len(counted) else "; no run of the other methods did"
    return f"Collapsed below half of the starting accuracy: {listed(said)}{rest}."

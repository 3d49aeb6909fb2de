"""The text of docs/reproductions.md: every measured number on it comes from results/*.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cppo_lab.analysis import statistics
from cppo_lab.analysis.claim_tests import Outcome, difference
from cppo_lab.analysis.claims import MARGIN
from cppo_lab.analysis.contrasts import ALPHA, POWER
from cppo_lab.analysis.formatting import MINUS, percent, plural, points, points_range, seconds, signed
from cppo_lab.analysis.load.result_files import ResultFile, score
from cppo_lab.analysis.paper import reported_differences
from cppo_lab.analysis.reproductions.figure import MOST_POINTS, is_measured, shown_in_words
from cppo_lab.analysis.reproductions.items import Item, anchor, heading
from cppo_lab.analysis.statistics import Estimate

MARGIN_POINTS = f"{100 * MARGIN:.0f}"
POWER_PERCENT = f"{100 * POWER:.0f}%"
FELL = "†"
HEADER = f"""# Reproductions

What CPPO's paper ([arXiv:2606.10968](https://arxiv.org/abs/2606.10968)) measured, every table and figure of it a sweep
of this lab, and what came of it at laptop scale: models of 0.1 to 3 million parameters on the embedded word problems,
in place of Qwen3 on mathematics. The page is made from `results/*.csv` by `make reproductions`; no measured number on
it is typed.

**How to read the verdicts.** A difference is of final accuracy (mean of the last three evaluations, of the last one in
runs with fewer than four; 1,024 held-out problems each), paired by seed and starting policy, with Student's 95%
interval. Every claim is tested for and against.

- *Above* agrees when the difference is significantly above zero. It does not agree when the *opposite* holds
  (significantly below zero), or when it is significantly *less than {MARGIN_POINTS} points*, so that an advantage of
  that size is excluded; a smaller one is not.
- *Equal* agrees when the difference is significantly within {MARGIN_POINTS} points of zero, and does not agree when it
  is significantly different from zero.
- Significant means p < {ALPHA} after Holm's adjustment for all claims of the same panel, those included that have no
  runs yet. Verdicts in **bold** stay what they are when adjusted for all tests of this page at once.
- All else is *not resolved*, with the numbers of seeds that would exclude an advantage or show it: with a power of
  {POWER_PERCENT} at Holm's first step, were the mean and the spread those seen, which over few seeds is a rough guess.
- A verdict on fewer seeds than the sweep plans is *interim*. Where two sweeps ask one thing of the same runs, it is
  tested once, on all of them.
- {FELL}: one of the two methods ended below where it started, so that the difference tells of its collapse.

{MARGIN_POINTS} points are what these sweeps were sized to tell. The paper's own differences are of other models,
another task and another score (best AIME Avg@16 in a window, one run each, no intervals), and some are smaller. Means
in tables are over all runs of a method, which may be other seeds than those of the next; curves are over the seeds
that all methods of a panel have, differences over pairs. Thresholds are those that the papers publish; MinPRO's and
CISPO's are not published, and are those of other implementations ([methods.md](methods.md)).

In the figures, contrasts that agree with the paper are green, those that do not red, and those that are not resolved
grey; the band is {MARGIN_POINTS} points to each side of zero, and arrows stand for what lies beyond {MOST_POINTS:.0f}.
Thin lines with open dots are differences from the sweep's baseline about which nothing was claimed; neither they nor
those of the tables are adjusted for their number.
"""
PROTOCOL = """## What was decided when

Claims and seeds were written down before the runs they are about, with these exceptions; what had been seen by then is
said with each.

- The claims themselves: a few seeds of the main regime. The rules of the verdicts were then made stricter, and alike in
  both directions, after a review: up to 14 seeds of the main regime. With the rules, both claims of the staleness sweep
  were spread from the regimes they had named to all eight (25 of its runs seen, of the main regime), and Figure 7's "a
  part of the masked tokens" became "more than a twentieth" (nine of its runs seen, at more than half). A/A's two halves
  of seeds became two runs from each starting policy (16 seeds seen).
- Seeds added for the width of intervals of headline contrasts: Figure 5's three sweeps from 16 to 28. Two of them were
  wider than 3 points to a side; the third, the order of the weights, was not, and went from not resolved to agreeing.
  The mask and the soft gate from 28 to 48; GRPO, DPPO and CPPO in Table 1's mismatch regime from 16 to 72, and then to
  84, since 72 left 3.1 points for one contrast.
- Seeds added for other reasons: A/A from 28 to 60, since 28 could not tell whether it is within 3 points. GRPO, DPPO
  and CPPO in Table 1's main regime from 16 to 60, all the seeds that other sweeps ran there, since CPPO less DPPO was
  negative over the first 16 and positive over the 28 that Figure 5's runs had.
- Seeds and settings cut to save time: Table 1's mild regime from 16 to 8 (four seen), the schedules and the equal share
  from 16 to 8 (16 seen of the linear schedule, none of the others), the horizon from 8 to 5 and the budgets from five
  sizes to three (none seen).
- `cppo_relative_budget` was added to the equal share when CPPO's result there had been seen.
- How verdicts are told was changed when nearly all runs had been seen, the rules were not: an opposite is told from an
  advantage that is excluded, what two sweeps ask of the same runs is tested once, and verdicts that stand among all
  tests are marked.
"""
BY_CLAIM = """In how many panels (models, regimes, lengths) each claim agrees, does not, and is open, and the lowest and
the highest mean difference. First those that held wherever they were resolved, then those that held in some panels and
not in others, those that failed wherever they were resolved, and those that no panel resolves."""
_KINDS = {
    "agrees": "What holds here",
    "does not agree": "What does not hold here",
    "not resolved": "What is not resolved",
}


def page(items: Sequence[Item], images: str) -> str:
    """The page in Markdown; `images` is the folder of the figures as the page refers to it."""
    parts = [HEADER, _summary(items), *(_section(item, images) for item in items), PROTOCOL]
    return "\n".join(parts)


def _summary(items: Sequence[Item]) -> str:
    """The claims one by one, then their tests by what became of them; the lab's own questions apart."""
    pairs = [(item, each) for item in items for each in item.outcomes if each.repeats is None]
    told = [(item, each) for item, each in pairs if each.estimate is not None]
    of_paper = [(item, each) for item, each in told if not each.claim.own]
    own = [(item, each) for item, each in told if each.claim.own]
    lines = ["## In short", "", _counts([each for _, each in of_paper], len(pairs)), ""]
    if len(told) < len(pairs):
        lines += [f"{plural(len(pairs) - len(told), 'test')} more wait for their runs.", ""]
    lines += [_effort_of_all(items), "", "### Claim by claim", "", BY_CLAIM, "", *_by_claim(of_paper)]
    for verdict, title in _KINDS.items():
        lines += _tests(title, [pair for pair in of_paper if pair[1].verdict == verdict])
    lines += _tests("The lab's own questions", own, "the question")
    return "\n".join(lines) + "\n"


def _counts(found: Sequence[Outcome], tests: int) -> str:
    of = {verdict: [each for each in found if each.verdict == verdict] for verdict in _KINDS}
    opposite = sum(each.is_opposite for each in of["does not agree"])
    stand = {verdict: sum(each.stands for each in each_kind) for verdict, each_kind in of.items()}
    return (
        f"{plural(len(found), 'test')} of the paper's claims, each counted in every panel it is tested in: "
        f"{len(of['agrees'])} agree, {len(of['does not agree'])} do not ({opposite} of them the opposite), "
        f"{len(of['not resolved'])} are not resolved. Adjusted for all {tests} tests of the page at once, "
        f"{stand['agrees']} agree and {stand['does not agree']} do not."
    )


def _effort_of_all(items: Sequence[Item]) -> str:
    spent = {row["run_id"]: score(row, "duration_s") for item in items for row in item.results.rows}
    hours = sum(value for value in spent.values() if math.isfinite(value)) / 3600
    return (
        f"{plural(len(spent), 'run')} in all, {hours:.0f} hours on one core each with others beside it, without the "
        "training of starting policies."
    )


def _by_claim(told: Sequence[tuple[Item, Outcome]]) -> list[str]:
    """One line for every claim, as BY_CLAIM says."""
    groups: dict[tuple[str, str], list[tuple[Item, Outcome]]] = {}
    for item, each in told:
        groups.setdefault((item.sweep.slug, each.claim.says), []).append((item, each))
    rows = []
    for (slug, says), members in groups.items():
        counts = [sum(each.verdict == verdict for _, each in members) for verdict in _KINDS]
        means = sorted(each.estimate.mean for _, each in members if each.estimate)
        claim = members[0][1].claim
        measured = _range(means) if claim.is_of_accuracy else signed(means[0])
        reported = reported_differences(claim.treatment, claim.baseline) if slug.startswith("table1") else []
        cells = [says, f"[{slug}](#{anchor(members[0][0])})", *map(str, counts), measured, _range(reported)]
        rows.append((_rank(*counts), line(*cells)))
    head_ = head("the paper says", "item", "agrees", "does not", "open", "measured", "in the paper")
    return [*head_, *(text for _, text in sorted(rows, key=lambda row: row[0]))]


def _rank(agrees: int, fails: int, _open: int) -> int:
    """Held wherever it was resolved, held in some panels alone, failed wherever it was resolved, not resolved."""
    return 0 if agrees and not fails else 1 if agrees else 2 if fails else 3


def _range(differences: Sequence[float]) -> str:
    if not differences:
        return ""
    low, high = points(min(differences)), points(max(differences))
    return low if low == high else f"{low} to {high}"


def _tests(title: str, pairs: Sequence[tuple[Item, Outcome]], of: str = "the paper says") -> list[str]:
    if not pairs:
        return []
    rows = [
        line(
            f"[{item.sweep.slug}](#{anchor(item)})",
            f"{each.claim.says}{place_in_words(each)}",
            measured_in_words(item, each),
            pairs_in_words(each),
            verdict_in_words(each),
        )
        for item, each in pairs
    ]
    return ["", f"### {title}", "", *head("item", of, "measured", "seeds", "verdict"), *rows]


def head(*names: str) -> list[str]:
    """The first two lines of a table."""
    return [line(*names), line(*("---" for _ in names))]


def line(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def place_in_words(outcome: Outcome) -> str:
    """The panel in brackets, where there is one."""
    return f" ({outcome.panel})" if outcome.panel else ""


def _section(item: Item, images: str) -> str:
    sweep = item.sweep
    lines = [f"## {heading(item)}", "", sweep.question, ""]
    lines += [f"- The paper's item: {sweep.paper}."] if sweep.paper else []
    lines += [
        f"- Command: `make repro-{sweep.name}`; at the paper's scale: `make repro-{sweep.name} SCALE=paper`.",
        f"- {_effort(item.results)}",
        "",
    ]
    if not is_measured(item.results):
        return "\n".join([*lines, *_claims(item)]) + "\n"
    lines += [
        f"![{sweep.title}: {shown_in_words(sweep.figure)}]({images}/{sweep.slug}.png)",
        "",
        *_methods(item.results, sweep.baseline),
        "",
        *_claims(item),
    ]
    return "\n".join(lines) + "\n"


def _effort(results: ResultFile) -> str:
    if not is_measured(results):
        return "Not run yet."
    took = np.array([score(row, "duration_s") for row in results.rows if row["duration_s"]])
    devices = ", ".join(sorted({row["device"] for row in results.rows if row["device"]}))
    commits = ", ".join(sorted({row["commit"] for row in results.rows if row["commit"]}))
    others = len(results.set_aside)
    unused = (
        f" {plural(others, 'further row')} of the same runs, measured elsewhere, not used here."
        if others
        else ""
    )
    return (
        f"{plural(len(results.rows), 'run')}, {seconds(float(np.median(took)))} each (median), {took.sum() / 3600:.1f} "
        f"hours together, without the starting policies ({devices}; commit {commits}). Runs that two sweeps share are "
        f"made once and counted in both.{unused}"
    )


def _methods(results: ResultFile, baseline: str | None) -> list[str]:
    several = len(results.panels) > 1
    names = ["method", "runs", "start", "final", "95% interval", "best", "collapsed", "masked"]
    names += [f"final, less {baseline}"] if baseline else []
    lines = head(*(["panel", *names] if several else names))
    for panel in results.panels:
        for method in results.methods(panel):
            rows = results.of(panel, method)
            values = {
                name: np.array([score(row, name) for row in rows])
                for name in ("start", "final", "best", "collapsed", "masked_share")
            }
            final = statistics.t_interval(values["final"])
            masked = values["masked_share"][np.isfinite(values["masked_share"])]
            cells = [
                method,
                str(len(rows)),
                percent(float(np.mean(values["start"]))),
                percent(final.mean),
                f"{percent(max(0.0, final.low))} to {percent(min(1.0, final.high))}"
                if final.has_interval
                else "",
                percent(float(np.mean(values["best"]))),
                f"{int(values['collapsed'].sum())} of {len(rows)}",
                percent(float(masked.mean())) if len(masked) else "",
            ]
            if baseline:
                seen = difference(results, panel, method, baseline) if method != baseline else None
                cells.append(_estimate(seen, True) if seen else "")
            lines.append(line(*([panel, *cells] if several else cells)))
    return lines


def _claims(item: Item) -> list[str]:
    lines = head("the paper says", "contrast", "where", "measured", "p for", "p against", "n", "verdict")
    for each in item.outcomes:
        claim = each.claim
        contrast = f"{claim.treatment} {MINUS} {claim.baseline}" if claim.baseline else claim.treatment
        what = "" if claim.score == "final" else f", {claim.score.replace('_', ' ')}"
        less = f" {MINUS} {claim.than:g}" if claim.than else ""
        lines.append(
            line(
                f"{'(asked by the lab) ' if claim.own else ''}{claim.says}",
                f"{contrast}{what}{less}",
                each.panel,
                measured_in_words(item, each),
                _p(each, each.adjusted.holds),
                _p(each, each.adjusted.fails),
                pairs_in_words(each),
                verdict_in_words(each),
            )
        )
    return lines


def measured_in_words(item: Item, outcome: Outcome) -> str:
    """The estimate with its interval, marked where a method of it ended below where it started."""
    if outcome.estimate is None:
        return "not run yet"
    text = _estimate(outcome.estimate, outcome.claim.is_of_accuracy)
    methods = (outcome.claim.treatment, outcome.claim.baseline or outcome.claim.treatment)
    fell = outcome.claim.is_of_accuracy and any(_fell(item.results, outcome.panel, each) for each in methods)
    return f"{text} {FELL}" if fell else text


def _fell(results: ResultFile, panel: str, method: str) -> bool:
    gains = [score(row, "final") - score(row, "start") for row in results.of(panel, method)]
    return bool(gains) and float(np.mean(gains)) < 0


def _estimate(seen: Estimate, is_of_accuracy: bool) -> str:
    if is_of_accuracy:
        return f"{points(seen.mean)} ({points_range(seen)})" if seen.has_interval else points(seen.mean)
    interval = f" ({signed(seen.low)} to {signed(seen.high)})" if seen.has_interval else ""
    return f"{signed(seen.mean)}{interval}"


def _p(outcome: Outcome, p: float) -> str:
    return f"{p:.2g}" if outcome.estimate is not None and outcome.estimate.has_interval else ""


def pairs_in_words(outcome: Outcome) -> str:
    """How many pairs were measured, and of how many where some are missing."""
    done = outcome.estimate.n if outcome.estimate else 0
    return f"{done} of {outcome.planned}" if outcome.is_interim else str(done)


def verdict_in_words(outcome: Outcome) -> str:
    """The verdict with its kind, or with the seeds that would resolve it; bold where it stands among all tests."""
    if outcome.repeats is not None:
        other = outcome.repeats
        return f"{verdict_in_words(other)}, on the {other.estimate.n if other.estimate else 0} seeds of {other.sweep}"
    if outcome.verdict == "not resolved":
        return f"not resolved{_needed(outcome)}"
    text = f"**{outcome.verdict}**" if outcome.stands else outcome.verdict
    remarks = [_disagreement(outcome)] if outcome.verdict == "does not agree" else []
    remarks += ["interim"] if outcome.is_interim else []
    return f"{text} ({'; '.join(remarks)})" if remarks else text


def _disagreement(outcome: Outcome) -> str:
    claim = outcome.claim
    margin = f"{MARGIN_POINTS} points" if claim.is_of_accuracy else f"{claim.margin:g}"
    if claim.expect == "equal":
        return "different"
    if claim.expect == "not zero":
        return f"within {margin} of zero"
    return "opposite" if outcome.is_opposite else f"less than {margin}"


def _needed(outcome: Outcome) -> str:
    claim = outcome.claim
    margin = f"{MARGIN_POINTS} points" if claim.is_of_accuracy else f"{claim.margin:g}"
    against = "show a difference" if claim.expect == "equal" else f"exclude {margin}"
    counts = ((outcome.needed_to_fail, against), (outcome.needed_to_hold, "show it"))
    known = [
        (f"{count:.0f}" if math.isfinite(count) else "over 1,000", what)
        for count, what in counts
        if count is not None
    ]
    if not known:
        return ""
    (first, what), *others = known
    return f" ({', '.join([f'{first} seeds would {what}', *(f'{count} {what}' for count, what in others)])})"

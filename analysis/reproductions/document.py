"""The text of docs/reproductions.md: every measured number in it comes from results/*.csv."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from cppo_lab.analysis.claim_tests import FAILS, HOLDS, INCONCLUSIVE, ClaimTest
from cppo_lab.analysis.claims import MARGIN
from cppo_lab.analysis.contrasts import ALPHA, POWER, difference, estimate
from cppo_lab.analysis.formatting import percent, percent_range, plural, points, seconds, signed
from cppo_lab.analysis.frozen import broken_in_words, frozen_in_words
from cppo_lab.analysis.page.tables import claims_table
from cppo_lab.analysis.paper import reported_differences
from cppo_lab.analysis.reproductions.collapses import collapse_rows
from cppo_lab.analysis.reproductions.figure import MOST_POINTS, shown_in_words
from cppo_lab.analysis.reproductions.items import PAPER_SCALE, Item, anchor, heading
from cppo_lab.analysis.reproductions.step_size_section import step_size_lines
from cppo_lab.analysis.run_table import Run, RunTable, known_mean
from cppo_lab.analysis.verdict_text import FELL, claim_estimate, claim_measured, claim_seeds, claim_verdict
from cppo_lab.sweeps.frozen_claims import frozen_for_manifest
from cppo_lab.sweeps.sweep_file import SweepFile
from cppo_lab.sweeps.tuned_points import read_tuned

MARGIN_POINTS = f"{100 * MARGIN:.0f}"
POWER_PERCENT = f"{100 * POWER:.0f}%"
HEADER = f"""# Reproductions

Every table and figure of CPPO's paper ([arXiv:2606.10968](https://arxiv.org/abs/2606.10968)) that measures something is
a sweep of this lab. This page sets the paper's claims beside the lab's results at laptop scale: models of 0.1 to 3
million parameters on the embedded word problems, and in the last section a pretrained one of 135 million on sums, in
place of Qwen3 on mathematics. `make reproductions` generates it from `results/*.csv`; no measured number is typed by
hand.

**How to read the verdicts.** A difference is in final accuracy (mean of the last three evaluations, or the last one in
runs with fewer than four; 1,024 held-out problems each, unless a section says otherwise), paired by seed and starting
policy, with a 95% Student t interval. Every claim is tested in both directions.

- An *above* claim holds when the difference is significantly above zero. It does not hold when the *opposite* does
  (significantly below zero), or when the difference is significantly *less than {MARGIN_POINTS} points*: an advantage
  of that size is excluded, a smaller one is not.
- An *equal* claim holds when the difference is significantly within {MARGIN_POINTS} points of zero, and does not hold
  when it is significantly different from zero.
- Significant means p < {ALPHA} after Holm's adjustment for all claims of the same panel, including those that have no
  runs yet. Verdicts in **bold** survive adjustment for all tests of this page at once.
- Everything else is *inconclusive*. The page gives the number of seeds that would detect the claimed difference, or
  exclude it, with {POWER_PERCENT} power at the first step of Holm's procedure, taking the observed mean and spread for
  the true ones; with few seeds this is a rough guess.
- A verdict with fewer seeds than planned is *interim*. A question that two sweeps ask of the same runs is tested once,
  on all of them.
- {FELL}: one of the two methods ended below its starting policy, so the difference reflects a collapse.

The sweeps were sized to resolve {MARGIN_POINTS} points. The paper's own differences are for other models, another task
and another score (best AIME Avg@16 in a window, one run each, no intervals), and some are smaller. Means in tables are
over all runs of a method, so two rows may cover different seeds; curves use the seeds that all methods of a panel
share, and differences use pairs. Thresholds are the published ones; those of MinPRO and CISPO are not published and
come from other implementations ([methods.md](methods.md)).

In the figures, contrasts whose claim holds are green, those whose claim does not hold red, and inconclusive ones grey.
The band marks {MARGIN_POINTS} points to each side of zero; arrows stand for what lies beyond {MOST_POINTS:.0f}. Thin
lines with open dots are differences from the sweep's baseline that no claim is about; neither they nor those in the
tables are adjusted for their number.
"""
PROTOCOL = """## What was decided when

Claims and numbers of seeds were fixed before the runs they concern, with these exceptions; each says what had been seen
by then.

- The claims were written with a few seeds of the main regime seen. After a review, with up to 14 of its seeds seen, the
  rules for verdicts were made stricter and symmetric. At the same time both claims of the staleness sweep were extended
  from the regimes they named to all eight (25 of its runs seen, all of the main regime), and Figure 7's "a part of the
  masked tokens" became "more than a twentieth" (nine of its runs seen, at more than half). A/A's two halves of seeds
  became two runs from each starting policy (16 seeds seen).
- Seeds added to narrow the intervals of headline contrasts: Figure 5's three sweeps from 16 to 28. Two of them were
  wider than 3 points to a side; the third, the order of the weights, was not, and went from inconclusive to holding.
  The mask and the soft gate from 28 to 48; GRPO, DPPO and CPPO in Table 1's mismatch regime from 16 to 72, and then to
  84, since 72 left 3.1 points for one contrast.
- Seeds added for other reasons: A/A from 28 to 60, since 28 could not tell whether it is within 3 points. GRPO, DPPO
  and CPPO in Table 1's main regime from 16 to 60, all the seeds that other sweeps ran there, since CPPO less DPPO was
  negative over the first 16 and positive over the 28 that Figure 5's runs had.
- Seeds and settings cut to save time: Table 1's mild regime from 16 to 8 (four seen), the schedules and the equal share
  from 16 to 8 (16 seen of the linear schedule, none of the others), the horizon from 8 to 5 and the budgets from five
  sizes to three (none seen).
- `cppo_relative_budget` was added to the equal share when CPPO's result there had been seen.
- How verdicts are reported was changed when nearly all runs had been seen; the rules were not. A contradiction is
  distinguished from an excluded advantage, a question that two sweeps ask of the same runs is tested once, and verdicts
  that survive adjustment for all tests are marked.
"""
BY_CLAIM = """For each claim, the number of panels (models, regimes, lengths) in which it holds, does not hold and is
inconclusive, with the lowest and the highest mean difference. Listed first are the claims that held wherever they were
resolved, then those that held in some panels and not in others, those that failed wherever they were resolved, and
those that no panel resolves."""
GREEDY = """Every setting, with the accuracy it started at. Greedy accuracy is that of the most likely responses, which
do not become better by being sampled more often."""
_TITLES = {HOLDS: "Holds here", FAILS: "Does not hold here", INCONCLUSIVE: "Inconclusive"}


def page(items: Sequence[Item], images: str) -> str:
    """The page in Markdown; `images` is the folder of the figures as the page refers to it."""
    parts = [HEADER, _summary(items), *(_section(item, images) for item in items), PROTOCOL]
    return "\n".join(parts)


def _summary(items: Sequence[Item]) -> str:
    """The claims one by one, then their tests by verdict; the lab's own questions apart."""
    pairs = [(item, test) for item in items for test in item.tests if test.repeats is None]
    measured = [(item, test) for item, test in pairs if test.estimate is not None]
    of_paper = [(item, test) for item, test in measured if not test.claim.own]
    own = [(item, test) for item, test in measured if test.claim.own]
    lines = ["## Summary", "", _counts([test for _, test in of_paper], len(pairs)), ""]
    if len(measured) < len(pairs):
        lines += [f"{plural(len(pairs) - len(measured), 'test')} more wait for their runs.", ""]
    lines += [_effort_of_all(items), "", "### Claim by claim", "", BY_CLAIM, "", *_by_claim(of_paper)]
    for verdict, title in _TITLES.items():
        lines += _tests(title, [pair for pair in of_paper if pair[1].verdict == verdict])
    lines += _tests("The lab's own questions", own, "question")
    return "\n".join(lines) + "\n"


def _counts(found: Sequence[ClaimTest], tests: int) -> str:
    of = {verdict: [test for test in found if test.verdict == verdict] for verdict in _TITLES}
    opposite = sum(test.is_opposite for test in of[FAILS])
    stand = {verdict: sum(test.stands for test in each) for verdict, each in of.items()}
    return (
        f"{plural(len(found), 'test')} of the paper's claims, counting each panel in which a claim is tested: "
        f"{len(of[HOLDS])} hold, {len(of[FAILS])} do not ({opposite} of them with the opposite sign), and "
        f"{len(of[INCONCLUSIVE])} are inconclusive. Adjusted for all {tests} tests of the page at once, "
        f"{stand[HOLDS]} hold and {stand[FAILS]} do not."
    )


def _effort_of_all(items: Sequence[Item]) -> str:
    spent = {run.run_id: run.duration_s for item in items for run in item.table.runs}
    hours = sum(value for value in spent.values() if math.isfinite(value)) / 3600
    return (
        f"{plural(len(spent), 'run')} in total, {hours:.0f} hours on one core each with others running beside it, "
        "excluding the training of starting policies."
    )


def _by_claim(measured: Sequence[tuple[Item, ClaimTest]]) -> list[str]:
    """One line for every claim, as BY_CLAIM says."""
    groups: dict[tuple[str, str], list[tuple[Item, ClaimTest]]] = {}
    for item, test in measured:
        groups.setdefault((item.sweep.slug, test.claim.says), []).append((item, test))
    rows = []
    for (slug, says), members in groups.items():
        counts = [sum(test.verdict == verdict for _, test in members) for verdict in _TITLES]
        means = sorted(test.estimate.mean for _, test in members if test.estimate)
        claim = members[0][1].claim
        seen = _range(means) if claim.is_of_accuracy else signed(means[0])
        reported = reported_differences(claim.treatment, claim.baseline) if slug.startswith("table1") else []
        cells = [says, f"[{slug}](#{anchor(members[0][0])})", *map(str, counts), seen, _range(reported)]
        rows.append((_rank(*counts), line(*cells)))
    head_ = head("claim", "item", "holds", "does not", "inconclusive", "measured", "in the paper")
    return [*head_, *(text for _, text in sorted(rows, key=lambda row: row[0]))]


def _rank(holds: int, fails: int, _inconclusive: int) -> int:
    """The order that BY_CLAIM gives."""
    return 0 if holds and not fails else 1 if holds else 2 if fails else 3


def _range(differences: Sequence[float]) -> str:
    if not differences:
        return ""
    low, high = points(min(differences)), points(max(differences))
    return low if low == high else f"{low} to {high}"


def _tests(title: str, pairs: Sequence[tuple[Item, ClaimTest]], kind: str = "claim") -> list[str]:
    if not pairs:
        return []
    rows = [line(f"[{item.sweep.slug}](#{anchor(item)})", *short_cells(item, test)) for item, test in pairs]
    return ["", f"### {title}", "", *head("item", kind, "measured", "seeds", "verdict"), *rows]


def short_cells(item: Item, test: ClaimTest, panel: str | None = None) -> tuple[str, str, str, str]:
    """Claim, measured difference, seeds and verdict of a test; `panel` is how its panel is called, if not as it is."""
    place = test.panel if panel is None else panel
    says = f"{test.claim.says} ({place})" if place else test.claim.says
    return says, claim_measured(test, item.table), claim_seeds(test), verdict_in_bold(test)


def verdict_in_bold(test: ClaimTest) -> str:
    """The verdict, bold where it survives adjustment for all tests."""
    text = claim_verdict(test)
    given_by = test.repeats or test
    if given_by.verdict == INCONCLUSIVE or not given_by.stands:
        return text
    return text.replace(test.verdict, f"**{test.verdict}**", 1)


def head(*names: str) -> list[str]:
    """The first two lines of a table."""
    return [line(*names), line(*("---" for _ in names))]


def line(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def _commands(sweep: SweepFile) -> str:
    command = f"`make repro-{sweep.name}`"
    if PAPER_SCALE not in sweep.scales:
        return command
    return f"{command}; at the paper's scale: `make repro-{sweep.name} SCALE=paper`"


def _section(item: Item, images: str) -> str:
    sweep = item.sweep
    lines = [f"## {heading(item)}", "", sweep.question, ""]
    lines += [f"- In the paper: {sweep.paper}."] if sweep.paper else []
    lines += [
        f"- Command: {_commands(sweep)}.",
        f"- {_effort(item.table)}",
        *_tuned_and_frozen(item),
        "",
    ]
    if item.step_size is not None:
        lines += step_size_lines(item, images)
        lines += _collapses(item.table)
        lines += [GREEDY, "", *_methods(item.table, baseline=None), ""] if _is_greedy(item.table) else []
    elif item.table.runs:
        lines += [
            f"![{sweep.title}: {shown_in_words(sweep.figure)}]({images}/{sweep.slug}.png)",
            "",
            *_methods(item.table, sweep.baseline),
            "",
        ]
    claims = _claims(item) if item.tests or item.step_size is None else []
    return "\n".join([*lines, *claims]) + "\n"


def _tuned_and_frozen(item: Item) -> list[str]:
    """Where the settings of a tuned sweep come from, and when its claims were frozen."""
    lines = []
    if item.sweep.tuned is not None:
        points = read_tuned(item.sweep.tuned, item.sweep.path)
        lines.append(
            f"- Each method at its best setting by the study `{points.study}` on "
            f"{plural(len(points.seeds), 'other seed')} (`sweeps/tuned/{item.sweep.tuned}.yaml`). Intervals include "
            "the error of the choice."
        )
    frozen = frozen_for_manifest(item.sweep)
    said, broken = frozen_in_words(frozen), broken_in_words(frozen)
    lines += [f"- {said[0].upper()}{said[1:]}."] if said else []
    lines += [f"- **{broken}**"] if broken else []
    return lines


def _effort(table: RunTable) -> str:
    if not table.runs:
        return "Not run yet."
    took = np.array([run.duration_s for run in table.runs if math.isfinite(run.duration_s)])
    devices = ", ".join(sorted({run.device for run in table.runs if run.device}))
    commits = ", ".join(sorted({run.commit for run in table.runs if run.commit}))
    others = plural(table.set_aside, "further row")
    unused = f" {others} of the same runs, measured elsewhere, not used here." if table.set_aside else ""
    return (
        f"{plural(len(table.runs), 'run')}, {seconds(float(np.median(took)))} each (median), "
        f"{took.sum() / 3600:.1f} hours in total, excluding starting policies ({devices}; commit {commits}). Runs that "
        f"two sweeps share are made once and counted in both.{unused}"
    )


def _methods(table: RunTable, baseline: str | None) -> list[str]:
    several = len(table.panels) > 1
    names = ["method", "runs", "start", "final", "95% interval", "best", "collapsed", "masked"]
    is_greedy = _is_greedy(table)
    names += ["greedy start", "greedy final"] * is_greedy
    names += [f"final − {baseline}"] if baseline else []
    lines = head(*(["panel", *names] if several else names))
    for panel in table.panels:
        for method in table.methods(panel):
            cells = [method, *_method_cells(table.of(panel, method), is_greedy)]
            if baseline:
                seen = (
                    difference(table.of(panel, method), table.of(panel, baseline))
                    if method != baseline
                    else None
                )
                cells.append(claim_estimate(seen) if seen else "")
            lines.append(line(*([panel, *cells] if several else cells)))
    return lines


def _collapses(table: RunTable) -> list[str]:
    rows = collapse_rows(table)
    if not rows:
        return ["No run ended below half of its starting accuracy.", ""]
    names = ("panel", "method", "ended below half of the start", "there from step, of each such run")
    return ["### Who collapsed, and when", "", *head(*names), *(line(*row) for row in rows), ""]


def _is_greedy(table: RunTable) -> bool:
    return any(np.isfinite(run.greedy_final) for run in table.runs)


def _method_cells(runs: Sequence[Run], is_greedy: bool) -> list[str]:
    def mean(name: str, show: Callable[[float], str] = percent) -> str:
        found = known_mean(np.array([run.score(name) for run in runs]))
        return "" if np.isnan(found) else show(found)

    final = estimate([run.final for run in runs])
    return [
        str(len(runs)),
        mean("start"),
        mean("final"),
        percent_range(final) if final and final.shows_interval else "",
        mean("best"),
        f"{int(sum(run.collapsed for run in runs))} of {len(runs)}",
        mean("masked_share"),
        *((mean("greedy_start"), mean("greedy_final")) if is_greedy else ()),
    ]


def _claims(item: Item) -> list[str]:
    table = claims_table(item.tests, item.table)
    lines = head(*(header for header, _ in table.columns))
    for test, cells in zip(item.tests, table.rows, strict=True):
        texts = [cell.text for cell in cells]
        own = "(the lab's question) " if test.claim.own else ""
        lines.append(line(own + texts[0], *texts[1:-1], verdict_in_bold(test)))
    return lines

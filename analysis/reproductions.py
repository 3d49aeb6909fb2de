"""docs/reproductions.md: what the paper says, what was measured, and whether the two agree.

Everything on the page comes from the sweep files and from results/*.csv; nothing is typed by hand. `python -m
analysis.reproductions` writes the page and its figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import stats
from analysis.claims import MARGIN, Outcome, answerable, difference, outcomes, read_claims
from analysis.figures.render import render
from analysis.figures.reproduction import MOST_POINTS, headlines, is_measured, reproduction, shown_in_words
from analysis.numbers import MINUS, plural
from analysis.planned import planned_runs
from analysis.result_files import ResultFile, read_results, score
from analysis.stats import Estimate
from cppo_lab.errors import UserError
from cppo_lab.runs.sweep_files import SweepFile, read_sweep

ORDER = (
    "table1",
    "fig2",
    "fig5_mechanisms",
    "fig5_ordering",
    "fig5_soft",
    "fig6_sensitivity",
    "fig6_kl",
    "fig6_binary",
    "fig7_budget",
    "staleness",
    "horizon",
    "schedules",
    "budgets",
    "equal_share",
    "aa",
)
HEADLINE_PANELS = "model=s, "
HEADLINE_IMAGE = "docs/images/reproductions/headlines.png"
PAPER_SCALE = "paper"
README_START, README_END = "<!-- headline -->", "<!-- /headline -->"
_KINDS = {
    "agrees": "What holds here",
    "does not agree": "What does not hold here",
    "not resolved": "What is not resolved",
}
_COUNTED = ("agree", "do not", "are not resolved")
HEADER = f"""# Reproductions

Every table and figure of CPPO's paper ([arXiv:2606.10968](https://arxiv.org/abs/2606.10968)) as a sweep of this
lab, and what came of it at laptop scale: models of 0.1 to 3 million parameters on the embedded word problems, in place
of Qwen3 on mathematics. The page is generated from `results/*.csv` by `make reproductions`; no number on it is typed.

**How to read the verdicts.** A difference is of final accuracy (mean of the last three evaluations, of the last one in
runs with fewer than four; 1,024 held-out problems each), paired by seed and starting policy, with Student's 95%
interval. Every claim is tested for and against. *Above* agrees when the difference is significantly above zero, and
does not agree when it is significantly below {100 * MARGIN:.0f} points, so that an advantage worth having is excluded.
*Equal* agrees when it is significantly within {100 * MARGIN:.0f} points of zero, and does not agree when it is
significantly different from zero. Significant means p < 0.05 after Holm's adjustment for all claims of the same panel,
those included that have no runs yet. All else is not resolved, with the number of seeds that would resolve it. A
verdict on fewer seeds than the sweep plans is *interim*.

The claims were written down before these runs were made, though not before every run of the lab: a few seeds of the
main regime had been seen. The rules were made stricter, and alike in both directions, after a review, when up to 14
seeds of the main regime had been seen. Seeds were added for the width of intervals, where it was more than 3 points to
a side, never for a verdict: Figure 5's sweeps were given 28 when 16 had been seen, its mask and soft gate 48 when 28
had, and GRPO, DPPO and CPPO in Table 1's mismatch regime 72 when 16 had; nothing else was given more after its results.
Those of Table 1's mild regime were cut from 16 to 8 when four had been seen, to save time. Means of methods with
different numbers of runs are over different seeds; differences never are. Thresholds are those that the papers publish;
MinPRO's and CISPO's are not published, and are those of other implementations ([methods.md](methods.md)).

In the figures, contrasts that agree with the paper are green, those that do not red, and those that are not resolved
grey; the band is {100 * MARGIN:.0f} points to each side of zero, and arrows stand for what lies
beyond {MOST_POINTS:.0f}. Thin lines with open dots are differences from the sweep's baseline about which nothing was
claimed; neither they nor those of the tables are adjusted for their number.
"""


@dataclass(frozen=True)
class Item:
    """One sweep with what it measured and what became of its claims."""

    sweep: SweepFile
    results: ResultFile
    outcomes: tuple[Outcome, ...]


def read_item(name: str, folder: Path, scale: str = "lab") -> Item:
    """The sweep `name` and its result file in `folder`."""
    sweep = read_sweep(name, scale)
    results = read_results(folder / f"{sweep.slug}.csv")
    claims, planned = read_claims(name, sweep.claims), planned_runs(sweep)
    if scale == PAPER_SCALE:
        # Some are about the embedded task or the testbed's regimes, which only exist at laptop scale.
        claims = [claim for claim in claims if answerable(claim, planned)]
    return Item(sweep, results, tuple(outcomes(claims, results, planned)))


def read_items(folder: Path) -> list[Item]:
    """Every sweep of the paper at laptop scale, and after it at the paper's, where it was run."""
    items = []
    for name in ORDER:
        items.append(read_item(name, folder))
        published = read_item(name, folder, PAPER_SCALE)
        items += [published] if published.results.rows else []
    return items


def page(items: Sequence[Item], images: str) -> str:
    """The page in Markdown; `images` is the folder of the figures as the page refers to it."""
    parts = [HEADER, _summary(items), *(_section(item, images) for item in items)]
    return "\n".join(parts)


def _summary(items: Sequence[Item]) -> str:
    """The claims by what became of them, and how many are of each kind."""
    told = [(item, each) for item in items for each in item.outcomes if each.estimate is not None]
    parts = [
        (title, [pair for pair in told if pair[1].verdict == verdict]) for verdict, title in _KINDS.items()
    ]
    counts = ", ".join(f"{len(pairs)} {verdict}" for verdict, (_, pairs) in zip(_COUNTED, parts, strict=True))
    waiting = sum(len(item.outcomes) for item in items) - len(told)
    lines = [
        "## In short",
        "",
        f"{plural(len(told), 'test')}, a claim counted in every panel it is tested in: {counts}.",
    ]
    if waiting:
        lines[-1] += f" {plural(waiting, 'test')} more wait for their runs."
    for title, pairs in parts:
        if not pairs:
            continue
        lines += ["", f"### {title}", "", *_head("item", "the paper says", "measured", "seeds", "verdict")]
        lines += [
            _line(
                f"[{item.sweep.slug}](#{_anchor(item)})",
                *(f"{each.claim.says}{_place(each)}", _measured(each), _pairs(each), _verdict(each)),
            )
            for item, each in pairs
        ]
    return "\n".join(lines) + "\n"


def _head(*names: str) -> list[str]:
    return [_line(*names), _line(*("---" for _ in names))]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _place(outcome: Outcome) -> str:
    return f" ({outcome.panel})" if outcome.panel else ""


def _heading(item: Item) -> str:
    return item.sweep.title + (", at the paper's scale" if item.sweep.scale == PAPER_SCALE else "")


def _anchor(item: Item) -> str:
    # As GitHub makes them.
    kept = "".join(c for c in _heading(item).lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _section(item: Item, images: str) -> str:
    sweep = item.sweep
    lines = [f"## {_heading(item)}", "", sweep.question, ""]
    lines += [f"- The paper's item: {sweep.paper}."] if sweep.paper else []
    lines += [
        f"- Command: `make repro-{sweep.name}`; at the paper's scale: `make repro-{sweep.name} SCALE=paper`.",
        f"- {_effort(item.results)}",
        "",
    ]
    if not is_measured(item.results):
        return "\n".join([*lines, *_claims(item.outcomes)]) + "\n"
    lines += [
        f"![{sweep.title}: {shown_in_words(sweep.figure)}]({images}/{sweep.slug}.png)",
        "",
        *_methods(item.results, sweep.baseline),
        "",
        *_claims(item.outcomes),
    ]
    return "\n".join(lines) + "\n"


def _effort(results: ResultFile) -> str:
    if not is_measured(results):
        return "Not run yet."
    seconds = sum(score(row, "duration_s") for row in results.rows if row["duration_s"])
    devices = ", ".join(sorted({row["device"] for row in results.rows if row["device"]}))
    commits = ", ".join(sorted({row["commit"] for row in results.rows if row["commit"]}))
    return (
        f"{plural(len(results.rows), 'run')}, {seconds / 3600:.1f} hours of one core each at a time ({devices}; "
        f"commit {commits}). Runs that two sweeps share are made once and counted in both."
    )


def _methods(results: ResultFile, baseline: str | None) -> list[str]:
    several = len(results.panels) > 1
    head = ["method", "runs", "start", "final", "95% interval", "best", "collapsed", "masked"]
    head += [f"final, less {baseline}"] if baseline else []
    lines = _head(*(["panel", *head] if several else head))
    for panel in results.panels:
        for method in results.methods(panel):
            rows = results.of(panel, method)
            values = {
                name: np.array([score(row, name) for row in rows])
                for name in ("start", "final", "best", "collapsed", "masked_share")
            }
            final = stats.t_interval(values["final"])
            masked = values["masked_share"][np.isfinite(values["masked_share"])]
            cells = [
                method,
                str(len(rows)),
                _percent(float(np.mean(values["start"]))),
                _percent(final.mean),
                f"{_percent(max(0.0, final.low))} to {_percent(min(1.0, final.high))}"
                if final.has_interval
                else "",
                _percent(float(np.mean(values["best"]))),
                f"{int(values['collapsed'].sum())} of {len(rows)}",
                _percent(float(masked.mean())) if len(masked) else "",
            ]
            if baseline:
                seen = difference(results, panel, method, baseline) if method != baseline else None
                cells.append(_estimate(seen, True) if seen else "")
            lines.append(_line(*([panel, *cells] if several else cells)))
    return lines


def _claims(found: Sequence[Outcome]) -> list[str]:
    lines = _head("the paper says", "contrast", "where", "measured", "p for", "p against", "n", "verdict")
    for each in found:
        claim = each.claim
        contrast = f"{claim.treatment} {MINUS} {claim.baseline}" if claim.baseline else claim.treatment
        what = "" if claim.score == "final" else f", {claim.score.replace('_', ' ')}"
        less = f" {MINUS} {claim.than:g}" if claim.than else ""
        lines.append(
            _line(
                *(claim.says, f"{contrast}{what}{less}", each.panel, _measured(each)),
                *(_p(each, each.p_for), _p(each, each.p_against), _pairs(each), _verdict(each)),
            )
        )
    return lines


def _measured(outcome: Outcome) -> str:
    return _estimate(outcome.estimate, outcome.claim.is_of_accuracy) if outcome.estimate else "not run yet"


def _estimate(seen: Estimate, is_of_accuracy: bool) -> str:
    """A difference with its interval, in points where it is one of accuracy."""
    scale, digits = (100, 1) if is_of_accuracy else (1, 4)
    mean, low, high = (f"{scale * value:+.{digits}f}" for value in (seen.mean, seen.low, seen.high))
    text = f"{mean} ({low} to {high})" if seen.has_interval else mean
    return text.replace("-", MINUS)


def _p(outcome: Outcome, p: float) -> str:
    return f"{p:.2g}" if outcome.estimate is not None and outcome.estimate.has_interval else ""


def _pairs(outcome: Outcome) -> str:
    done = outcome.estimate.n if outcome.estimate else 0
    return f"{done} of {outcome.planned}" if outcome.is_interim else str(done)


def _verdict(outcome: Outcome) -> str:
    if outcome.verdict != "not resolved":
        return f"**{outcome.verdict}**{' (interim)' if outcome.is_interim else ''}"
    needed = outcome.needed
    return f"not resolved ({plural(needed, 'seed')} would)" if needed else "not resolved"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def headline_block(items: Sequence[Item], image: str) -> str:
    """The README's picture and its caption."""
    lines = [
        README_START,
        "![Held-out accuracy against training steps, and the contrasts of the paper's headline claims]"
        f"({image})",
        "",
        "*Drawn by the lab from `results/`: a model of 0.1 million parameters, each seed from a starting policy of its",
        "own. Differences of final accuracy in points, with 95% intervals over paired runs; how verdicts are given,",
        "and all other claims: [docs/reproductions.md](docs/reproductions.md).*",
        "",
        *_head("CPPO's paper says", "measured here", "seeds", "verdict"),
        *(
            _line(f"{each.claim.says}{_place(each)}", _measured(each), _pairs(each), _verdict(each))
            for each in headline_outcomes(items)
        ),
        README_END,
    ]
    return "\n".join(lines)


def headline_outcomes(items: Sequence[Item]) -> list[Outcome]:
    """The headline claims at laptop scale, for the model with most seeds, in every regime."""
    return [
        outcome
        for item in items
        if item.sweep.scale != PAPER_SCALE
        for outcome in item.outcomes
        if outcome.claim.headline and (not outcome.panel or outcome.panel.startswith(HEADLINE_PANELS))
    ]


def readme_with(readme: str, block: str) -> str:
    """The README with its picture and caption replaced. Raises UserError where it does not say where they are."""
    if readme.find(README_START) < 0 or readme.find(README_END) < readme.find(README_START):
        raise UserError(f"README: {README_START} and {README_END}: must both stand in it, in this order.")
    before, _, rest = readme.partition(README_START)
    _, _, after = rest.partition(README_END)
    return f"{before}{block}{after}"


def write(results: Path, docs: Path, readme: Path | None = None) -> Path:
    """Write reproductions.md and its figures into `docs`, and the picture of `readme`; returns the page."""
    items = read_items(results)
    images = docs / "images" / "reproductions"
    images.mkdir(parents=True, exist_ok=True)
    for item in items:
        figure = reproduction(item.results, item.outcomes, item.sweep.figure, item.sweep.baseline)
        if figure is not None:
            drawn = render(item.sweep.slug, figure, png=True, pdf=False, page=False)
            assert drawn.png is not None, "a PNG was asked for"
            (images / f"{item.sweep.slug}.png").write_bytes(drawn.png)
    table1 = items[0].results
    shown = [panel for panel in table1.panels if panel.startswith(HEADLINE_PANELS)]
    figure = headlines(table1, shown, headline_outcomes(items))
    if figure is not None and readme is not None:
        picture = render("headlines", figure, png=True, pdf=False, page=False).png
        assert picture is not None, "a PNG was asked for"
        (images / "headlines.png").write_bytes(picture)
        text = readme_with(readme.read_text(encoding="utf-8"), headline_block(items, HEADLINE_IMAGE))
        readme.write_text(text, encoding="utf-8")
    path = docs / "reproductions.md"
    path.write_text(page(items, "images/reproductions"), encoding="utf-8")
    return path


def main() -> None:
    """`python -m analysis.reproductions [--results FOLDER] [--docs FOLDER]`."""
    parser = argparse.ArgumentParser(description="Write docs/reproductions.md from results/*.csv.")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--readme", type=Path, help="also renew its picture and caption")
    given = parser.parse_args()
    try:
        print(write(given.results, given.docs, given.readme))
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()

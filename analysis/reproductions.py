"""docs/reproductions.md: what the paper says, what was measured, and whether the two agree.

Everything on the page comes from the sweep files and from results/*.csv; nothing is typed by hand. `python -m
analysis.reproductions` writes the page and its figures.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import stats
from analysis.claims import MARGIN, Outcome, outcomes, read_claims
from analysis.figures.render import render
from analysis.figures.reproduction import headlines, is_measured, reproduction, shown_in_words
from analysis.numbers import MINUS, plural
from analysis.result_files import ResultFile, read_results, score
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
MAIN_PANEL = "model=s, regime=many_updates"
HEADLINE_IMAGE = "docs/images/reproductions/headlines.png"
README_START, README_END = "<!-- headline -->", "<!-- /headline -->"
HEADER = f"""# Reproductions

Every table and figure of CPPO's paper ([arXiv:2606.10968](https://arxiv.org/abs/2606.10968)) as a sweep of this
lab, and what came of it at laptop scale: models of 0.1 to 3 million parameters on the embedded word problems, in place
of Qwen3 on mathematics. The page is generated from `results/*.csv` by `make reproductions`; no number on it is typed.

**How to read the verdicts.** A difference is of final accuracy (mean of the last three evaluations, 1,024 held-out
problems each), paired by seed and starting policy, with Student's 95% interval. *above* agrees when the interval lies
above zero and Holm's adjusted p over the claims of the same panel is below 0.05; it does not agree when an advantage of
{100 * MARGIN:.0f} points or more is excluded. *equal* agrees when the interval lies within {100 * MARGIN:.0f} points of
zero, and does not agree when it excludes zero. All else is not resolved, with the number of seeds that would resolve
it. The rules and the claims were written down before these runs were made, though not before every run of the lab: a
few seeds of the main regime had been seen. Thresholds are those that the papers publish.

In the figures, contrasts that agree with the paper are green, those that do not red, and those that are not resolved
grey; the band is {100 * MARGIN:.0f} points to each side of zero.
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
    return Item(sweep, results, tuple(outcomes(read_claims(name, sweep.claims), results)))


def page(items: Sequence[Item], images: str) -> str:
    """The page in Markdown; `images` is the folder of the figures as the page refers to it."""
    parts = [HEADER, _summary(items), *(_section(item, images) for item in items)]
    return "\n".join(parts)


def _summary(items: Sequence[Item]) -> str:
    lines = [
        "## In short",
        "",
        "| item | the paper says | measured | n | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    for item in items:
        for outcome in item.outcomes:
            place = f" ({outcome.panel})" if outcome.panel else ""
            lines.append(
                f"| [{item.sweep.name}](#{_anchor(item)}) | {outcome.claim.says}{place} | {_measured(outcome)} "
                f"| {_pairs(outcome)} | {_verdict(outcome)} |"
            )
        if not item.outcomes:
            lines.append(
                f"| [{item.sweep.name}](#{_anchor(item)}) | {item.sweep.title} | too few runs yet | 0 | not resolved |"
            )
    return "\n".join(lines) + "\n"


def _anchor(item: Item) -> str:
    kept = "".join(c for c in item.sweep.title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _section(item: Item, images: str) -> str:
    sweep = item.sweep
    lines = [f"## {sweep.title}", "", sweep.question, ""]
    lines += [f"- The paper's item: {sweep.paper}."] if sweep.paper else []
    lines += [
        f"- Command: `make repro-{sweep.name}`; at the paper's scale: `make repro-{sweep.name} SCALE=paper`.",
        f"- Baseline: {sweep.baseline}." if sweep.baseline else "",
        f"- {_effort(item.results)}",
        "",
    ]
    if not is_measured(item.results):
        return "\n".join(line for line in lines if line is not None) + "\n"
    lines += [
        f"![{sweep.title}: {shown_in_words(sweep.figure)}]({images}/{sweep.slug}.png)",
        "",
        *_methods(item.results),
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


def _methods(results: ResultFile) -> list[str]:
    several = len(results.panels) > 1
    head = ["method", "runs", "start", "final", "95% interval", "best", "collapsed", "masked"]
    head = (["panel", *head]) if several else head
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
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
            lines.append("| " + " | ".join([panel, *cells] if several else cells) + " |")
    return lines


def _claims(found: Sequence[Outcome]) -> list[str]:
    if not found:
        return ["Too few of the runs are done to hold a claim against them."]
    lines = [
        "| the paper says | contrast | where | measured | Holm's p | n | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for outcome in found:
        claim = outcome.claim
        contrast = f"{claim.treatment} {MINUS} {claim.baseline}" if claim.baseline else claim.treatment
        what = "" if claim.score == "final" else f", {claim.score.replace('_', ' ')}"
        p = "" if math.isnan(outcome.p_holm) else f"{outcome.p_holm:.2g}"
        lines.append(
            f"| {claim.says} | {contrast}{what} | {outcome.panel} | {_measured(outcome)} | {p} | {_pairs(outcome)} "
            f"| {_verdict(outcome)} |"
        )
    return lines


def _measured(outcome: Outcome) -> str:
    seen = outcome.estimate
    if seen is None:
        return ""
    scale, digits = (100, 1) if outcome.claim.margin else (1, 4)
    mean, low, high = (f"{scale * value:+.{digits}f}" for value in (seen.mean, seen.low, seen.high))
    text = f"{mean} ({low} to {high})" if seen.has_interval else mean
    return text.replace("-", MINUS)


def _pairs(outcome: Outcome) -> str:
    return str(outcome.estimate.n) if outcome.estimate else "0"


def _verdict(outcome: Outcome) -> str:
    if outcome.verdict != "not resolved":
        return f"**{outcome.verdict}**"
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
        "*Drawn by the lab from `results/`: a model of 0.1 million parameters, up to 64 updates per rollout, each seed",
        "from a starting policy of its own. Differences of final accuracy in points, with 95% intervals over paired",
        "runs. All claims, at every scale measured: [docs/reproductions.md](docs/reproductions.md).*",
        "",
        "| CPPO's paper says | measured here | seeds | verdict |",
        "| --- | --- | --- | --- |",
        *(
            f"| {outcome.claim.says} | {_measured(outcome)} | {_pairs(outcome)} | {_verdict(outcome)} |"
            for outcome in headline_outcomes(items)
        ),
        README_END,
    ]
    return "\n".join(lines)


def headline_outcomes(items: Sequence[Item]) -> list[Outcome]:
    """The headline claims where most seeds were spent."""
    return [
        outcome
        for item in items
        for outcome in item.outcomes
        if outcome.claim.headline and outcome.panel in ("", MAIN_PANEL)
    ]


def readme_with(readme: str, block: str) -> str:
    """The README with its picture and caption replaced."""
    before, _, rest = readme.partition(README_START)
    _, _, after = rest.partition(README_END)
    return f"{before}{block}{after}"


def write(results: Path, docs: Path, readme: Path | None = None) -> Path:
    """Write reproductions.md and its figures into `docs`, and the picture of `readme`; returns the page."""
    items = [read_item(name, results) for name in ORDER]
    images = docs / "images" / "reproductions"
    images.mkdir(parents=True, exist_ok=True)
    for item in items:
        figure = reproduction(item.results, item.outcomes, item.sweep.figure)
        if figure is not None:
            drawn = render(item.sweep.slug, figure, png=True, pdf=False, page=False)
            assert drawn.png is not None, "a PNG was asked for"
            (images / f"{item.sweep.slug}.png").write_bytes(drawn.png)
    figure = headlines(items[0].results, MAIN_PANEL, headline_outcomes(items))
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
    print(write(given.results, given.docs, given.readme))


if __name__ == "__main__":
    main()

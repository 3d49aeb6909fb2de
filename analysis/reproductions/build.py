"""docs/reproductions.md and the README's picture: the paper's claims, what was measured, and which claims hold.

`python -m cppo_lab.analysis.reproductions` writes the page and its figures from the sweep files and results/*.csv.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cppo_lab.analysis.claim_tests import ClaimTest
from cppo_lab.analysis.controls import AT_BEST, FEWER_EPOCHS, SAME_KL
from cppo_lab.analysis.figures.render import render
from cppo_lab.analysis.grouping import distinct_panels
from cppo_lab.analysis.reproductions.document import (
    MARGIN_POINTS,
    anchor,
    head,
    line,
    page,
    short_cells,
)
from cppo_lab.analysis.reproductions.figure import headlines, reproduction
from cppo_lab.analysis.reproductions.items import PAPER_SCALE, Item, read_items
from cppo_lab.analysis.reproductions.step_size_section import one_rate_note, step_size_figures
from cppo_lab.errors import UserError
from cppo_lab.sweeps.tune_section import THRESHOLD
from cppo_lab.sweeps.tuned_points import read_tuned

HEADLINE_PANELS = "model=s, "
IMAGES = "docs/images/reproductions"
HEADLINE_IMAGE = f"{IMAGES}/headlines.png"
CREDITED = "credited"
"""The measure of claims about what a method at its best adds to the best control."""
README_START, README_END = "<!-- headline -->", "<!-- /headline -->"

_CAPTION = """*Measured by this lab (`results/`): final held-out accuracy less that of plain policy gradient, in
points, with 95% intervals over paired runs; a model of 0.1 million parameters, a starting policy for each seed.
{marks}
A claim does not hold where its opposite is significant, or where an advantage of {margin} points (grey band) is
excluded; verdicts are adjusted for all claims of the sweep: [{name}]({page}).*"""
_MARKS = """Hollow: both at the largest learning rate tried. Diamonds: each at its best one. Squares: plain policy
gradient slowed down to the method's KL."""
_TUNED_MARKS = {
    AT_BEST: "Diamonds: each at its best learning rate, [tuned](docs/tuning.md) on other seeds.",
    SAME_KL: "Squares: plain policy gradient slowed down to the method's KL.",
    FEWER_EPOCHS: "Triangles: plain policy gradient with fewer epochs.",
}


def headline_block(items: Sequence[Item], image: str) -> str:
    """The README's pictures and tables: methods at their best, and the paper's claims at one learning rate."""
    best = next((item for item in items if _credited(item)), None)
    parts = [
        README_START,
        *(_at_their_best(best, _pictured(best, items)) if best else []),
        *_at_one_rate(items, image, folded=best is not None),
    ]
    return "\n".join([*parts, README_END])


def _credited(item: Item) -> list[ClaimTest]:
    """The measured claims of an item about what a method at its best adds to the best control."""
    return [test for test in item.tests if test.claim.measure == CREDITED and test.estimate is not None]


def _pictured(best: Item, items: Sequence[Item]) -> Item:
    """Of the items tuned alike, the one with most kinds of controls: some came after the claims were frozen."""
    alike = [item for item in items if item.sweep.tuned == best.sweep.tuned and item.step_size is not None]
    return max(alike, key=lambda item: len(_kinds(item)), default=best)


def _kinds(item: Item) -> list[str]:
    """The kinds of controls that an item has."""
    controls = () if item.step_size is None else item.step_size.controls
    return [kind for kind in _TUNED_MARKS if any(kind in each.controls for each in controls)]


def _at_their_best(item: Item, pictured: Item) -> list[str]:
    name = f"{pictured.sweep.slug}-control"
    shown = [*(test for test in item.tests if _is_headline(test)), *_credited(item)]
    panels = distinct_panels([test.panel for test in shown])
    marks = _marks(pictured)
    return [
        f'<img src="{IMAGES}/{name}.png" width="640" alt="What each rule adds to plain policy gradient, each '
        'at its best, and against slower ones">',
        "",
        _CAPTION.format(
            marks=marks,
            margin=MARGIN_POINTS,
            page=f"docs/reproductions.md#{anchor(item)}",
            name=item.sweep.slug,
        ),
        "",
        *head("each at its best", "measured here", "seeds", "verdict"),
        *(line(*short_cells(item, test, panels[test.panel])) for test in shown),
        "",
    ]


def _at_one_rate(items: Sequence[Item], image: str, folded: bool) -> list[str]:
    """The paper's headline claims, as one learning rate for all methods shows them."""
    note = one_rate_note(items)
    said = [f"**The paper's claims below: {note[0].lower()}{note[1:]}**", ""] if note else []
    lines = [
        "![Held-out accuracy against training steps, and the contrasts of the paper's headline claims]"
        f"({image})",
        "",
        "*Top: means over the seeds that all methods of a panel share. Bottom: differences in final accuracy in",
        "points, with 95% intervals over paired runs. All claims, models and regimes, and the rules for verdicts:",
        "[docs/reproductions.md](docs/reproductions.md).*",
        "",
        *head("claim of the CPPO paper", "measured here", "seeds", "verdict"),
        *(line(*short_cells(item, test)) for item in items for test in _headlines(item)),
    ]
    if not folded:
        return [*said, *lines]
    summary = "The CPPO paper's claims at one learning rate for all methods"
    return [*said, "<details>", f"<summary>{summary}</summary>", "", *lines, "", "</details>"]


def _marks(item: Item) -> str:
    """What the figure's marks mean, and whether thresholds were tuned as well."""
    if item.sweep.tuned is None:
        return _MARKS
    told = [_TUNED_MARKS[kind] for kind in _kinds(item)]
    keys = read_tuned(item.sweep.tuned, item.sweep.path).keys
    return "\n".join([*told, *([] if THRESHOLD in keys else ["Thresholds are the published ones."])])


def _is_headline(test: ClaimTest) -> bool:
    """Whether a measured claim of the paper is one of its headlines, for methods at their best."""
    return test.claim.headline and test.claim.measure == AT_BEST and test.estimate is not None


def _headlines(item: Item) -> list[ClaimTest]:
    """The headline claims of an item at laptop scale, for the model with most seeds, in every regime."""
    return [
        test
        for test in item.tests
        if item.sweep.scale != PAPER_SCALE
        and test.claim.headline
        and not _is_headline(test)
        and (not test.panel or test.panel.startswith(HEADLINE_PANELS))
    ]


def readme_with(readme: str, block: str) -> str:
    """The README with its picture and caption replaced. Raises UserError where its marks are missing."""
    if readme.find(README_START) < 0 or readme.find(README_END) < readme.find(README_START):
        raise UserError(f"README: {README_START} and {README_END}: must both be in it, in this order.")
    before, _, rest = readme.partition(README_START)
    _, _, after = rest.partition(README_END)
    return f"{before}{block}{after}"


def write(results: Path, docs: Path, readme: Path | None = None) -> Path:
    """Write reproductions.md and its figures into `docs`, and the picture of `readme`; returns the page."""
    items = read_items(results)
    images = docs / "images" / "reproductions"
    images.mkdir(parents=True, exist_ok=True)
    for item in items:
        for name, drawn in _figures(item).items():
            (images / f"{name}.png").write_bytes(_png(name, drawn))
    table1 = items[0].table
    shown = [panel for panel in table1.panels if panel.startswith(HEADLINE_PANELS)]
    figure = headlines(table1, shown, [test for item in items for test in _headlines(item)])
    if figure is not None and readme is not None:
        (images / "headlines.png").write_bytes(_png("headlines", figure))
        text = readme_with(readme.read_text(encoding="utf-8"), headline_block(items, HEADLINE_IMAGE))
        readme.write_text(text, encoding="utf-8")
    path = docs / "reproductions.md"
    path.write_text(page(items, "images/reproductions"), encoding="utf-8")
    return path


def _figures(item: Item) -> dict[str, Figure]:
    """The figures of an item by the names of their files."""
    if item.step_size is not None:
        return {name: figure for name, (_, figure) in step_size_figures(item).items()}
    figure = reproduction(item.table, item.tests, item.sweep.figure, item.sweep.baseline)
    return {} if figure is None else {item.sweep.slug: figure}


def _png(name: str, figure: Figure) -> bytes:
    png = render(name, figure, png=True, pdf=False, page=False).png
    assert png is not None, "a PNG was asked for"
    return png


def main() -> None:
    """`python -m cppo_lab.analysis.reproductions [--results FOLDER] [--docs FOLDER]`."""
    parser = argparse.ArgumentParser(description="Write docs/reproductions.md from results/*.csv.")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--readme", type=Path, help="also renew its picture and caption")
    given = parser.parse_args()
    try:
        print(write(given.results, given.docs, given.readme))
    except UserError as error:
        sys.exit(f"Error: {error}")

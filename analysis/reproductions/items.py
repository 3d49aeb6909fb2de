"""The sweeps that repeat the paper's tables and figures, each with its measured runs and tested claims."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from cppo_lab.analysis.claim_tests import ClaimTest, answerable, check_claims, together
from cppo_lab.analysis.claims import read_claims
from cppo_lab.analysis.coordinates import named_without_rule
from cppo_lab.analysis.load.result_files import read_results, run_table
from cppo_lab.analysis.reproductions.planned import planned_runs
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.analysis.step_size import StepSize, step_size
from cppo_lab.analysis.tuned import at_tuned_points, points_of_file
from cppo_lab.errors import UserError
from cppo_lab.sweeps.sweep_file import SweepFile, read_sweep, sweep_names

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
OWN = (
    "tuned_table1",
    "tuned_controls",
    "lr_sensitivity",
    "delta_sensitivity",
    "long_runs",
    "direction",
    "rules_2026",
    "real_quickstart",
)
"""The lab's own sweeps, on the page once they have results."""
PAPER_SCALE = "paper"


@dataclass(frozen=True)
class Item:
    """One sweep with its measured runs and tested claims; one of OWN also with what it says of the size of a step."""

    sweep: SweepFile
    table: RunTable
    tests: tuple[ClaimTest, ...]
    step_size: StepSize | None = None


def read_item(name: str, folder: Path, scale: str = "lab") -> Item:
    """The sweep `name` and its result file in `folder`."""
    sweep = read_sweep(name, scale)
    table = at_tuned_points(run_table(read_results(folder / f"{sweep.slug}.csv")), points_of_file(sweep))
    claims, planned = read_claims(name, sweep.claims), planned_runs(sweep)
    if scale == PAPER_SCALE:
        # Some claims concern the embedded task or regimes that only exist at laptop scale.
        claims = [claim for claim in claims if answerable(claim, planned)]
    tests = tuple(check_claims(claims, table, planned, sweep.slug))
    known = step_size(table, named_without_rule(table.methods())) if name in OWN else None
    return Item(sweep, table, tests, known)


def read_items(folder: Path) -> list[Item]:
    """Every sweep of the paper at laptop scale, each followed by its results at the paper's scale where there are any,
    and
    the lab's own sweeps that have results.

    Raises UserError where there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"results={folder}: no such folder; `cppo-lab results NAME` writes result files.")
    items = []
    for name in ORDER:
        items.append(read_item(name, folder))
        published = read_item(name, folder, PAPER_SCALE)
        items += [published] if published.table.runs else []
    own = [read_item(name, folder) for name in OWN if name in sweep_names()]
    items += [item for item in own if item.table.runs]
    found = iter(together([test for item in items for test in item.tests]))
    return [replace(item, tests=tuple(islice(found, len(item.tests)))) for item in items]


def heading(item: Item) -> str:
    """The title of the item's section."""
    return item.sweep.title + (", at the paper's scale" if item.sweep.scale == PAPER_SCALE else "")


def anchor(item: Item) -> str:
    """The anchor of the item's section, as GitHub generates it."""
    kept = "".join(c for c in heading(item).lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")

"""The short table of a study over the learning rate: every method's final accuracy at every rate."""

from __future__ import annotations

from cppo_lab.analysis.formatting import percent
from cppo_lab.analysis.grids import RATE, value_text
from cppo_lab.analysis.page.tables import Cell, Table
from cppo_lab.analysis.single_rates import panels_by_regime, regime_of
from cppo_lab.analysis.summary import MethodResult, Summary


def rates_table(summary: Summary) -> Table | None:
    """One row per method and one column per rate; None where the methods are not compared at their best."""
    inside = {panel for panels in panels_by_regime(summary).values() for panel in panels}
    found: dict[tuple[str, str], dict[float, MethodResult]] = {}
    for result in summary.results:
        rate = dict(result.group.values).get(RATE)
        if result.group.panel in inside and rate is not None:
            place = regime_of(result.group, (RATE,)), result.group.method
            found.setdefault(place, {})[float(rate)] = result
    if not found:
        return None
    rates = sorted({rate for row in found.values() for rate in row})
    has_panels = len({panel for panel, _ in found}) > 1
    rows = [
        (
            *((Cell(panel),) if has_panels else ()),
            Cell(method, method=method),
            *(Cell.mean(row[rate].final if rate in row else None, percent) for rate in rates),
        )
        for (panel, method), row in sorted(found.items(), key=lambda item: _order(item[0][0], found))
    ]
    columns = [("method", False), *((f"lr={value_text(rate)}", True) for rate in rates)]
    return Table(
        "rates",
        "Mean final accuracy at single learning rates. The highest of a row is chosen on these seeds, and so "
        "somewhat too high.",
        (*((("panel", False),) if has_panels else ()), *columns),
        tuple(rows),
    )


def _order(panel: str, found: dict[tuple[str, str], dict[float, MethodResult]]) -> int:
    """Panels stay together, in the order in which they first appear."""
    return list(dict.fromkeys(name for name, _ in found)).index(panel)

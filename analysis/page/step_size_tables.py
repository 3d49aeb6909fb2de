"""The tables of "How much is a smaller step?"."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from cppo_lab.analysis.controls import AT_BEST, FEWER_EPOCHS, SAME_KL, Control
from cppo_lab.analysis.formatting import NONE, percent, points, points_range
from cppo_lab.analysis.good_range import Sensitivity
from cppo_lab.analysis.grids import value_text
from cppo_lab.analysis.page.tables import Cell, Column, Table
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.step_size import StepSize
from cppo_lab.analysis.step_size_text import open_end, range_difference, range_text, range_verdict

Row = TypeVar("Row")


def step_size_tables(known: StepSize) -> list[Table]:
    """The table of controls and that of good ranges, those that have rows."""
    made = [control_table(known) if known.controls else None, _ranges(known) if known.curves else None]
    return [table for table in made if table is not None]


def control_table(known: StepSize) -> Table:
    """Every method less plain policy gradient: at one rate, each at its best, and at the same KL."""
    has_fewer = any(FEWER_EPOCHS in control.controls for control in known.controls)

    def seen(control: Control, name: str) -> Estimate | None:
        found = control.controls.get(name)
        return found.estimate if found else None

    def at_one(control: Control) -> Cell:
        found = control.at_one.estimate if control.at_one else None
        return Cell.of(found.mean if found else None, points)

    def same_kl(control: Control) -> Cell:
        found = seen(control, SAME_KL)
        return Cell.mean(found, points) if found else Cell(control.why_not.get(SAME_KL, NONE), "")

    def column(header: str, name: str) -> tuple[Column[Control], Column[Control]]:
        return (
            Column(header, lambda c: Cell.mean(seen(c, name), points)),
            Column(f"95% interval {header}", lambda c: Cell.interval(seen(c, name), points_range)),
        )

    columns: tuple[Column[Control], ...] = (
        *_panel_column([control.panel for control in known.controls], lambda c: c.panel),
        Column("method", lambda c: Cell(c.method, method=c.method), numeric=False),
        Column("best setting", lambda c: Cell(c.point), numeric=False),
        Column("seeds", lambda c: Cell(str(c.controls[AT_BEST].n), c.controls[AT_BEST].n)),
        Column("at one rate", at_one),
        *column("each at its best", AT_BEST),
        Column("at the same KL", same_kl),
        Column("95% interval at the same KL", lambda c: Cell.interval(seen(c, SAME_KL), points_range)),
        *(column("against fewer epochs", FEWER_EPOCHS) if has_fewer else ()),
        Column("credited", lambda c: Cell.mean(c.credited, points)),
        Column("verdict", lambda c: Cell(c.verdict), numeric=False),
    )
    rates = sorted({control.rate for control in known.controls if math.isfinite(control.rate)})
    at = f"lr={value_text(rates[-1])}" if len(rates) == 1 else "the largest that both were tried at"
    return Table.of(
        "control",
        f"Final accuracy less that of plain policy gradient, in points. At one rate: both at {at}, which a method "
        "is not credited with. Each at its best: the settings are chosen by other seeds than those compared. At "
        "the same KL: plain policy gradient at the learning rate that moves the policy as far per rollout. "
        "Credited: what is left over the best of these controls; the verdict is higher only if the method is above "
        "all of them.",
        columns,
        known.controls,
    )


def _ranges(known: StepSize) -> Table:
    several = len(known.axes) > 1
    contrasts = {
        (each.axis, each.panel, each.contrast.treatment): each
        for each in known.ranges
        if each.contrast.estimate
    }

    def difference(curve: Sensitivity) -> Cell:
        found = contrasts.get(_place(curve))
        if found is None or found.contrast.estimate is None:
            return Cell(NONE, "")
        return Cell(range_difference(found), found.contrast.estimate.mean)

    def verdict(curve: Sensitivity) -> Cell:
        found = contrasts.get(_place(curve))
        return Cell(range_verdict(found) if found else NONE)

    def interval(curve: Sensitivity) -> Cell:
        seen = curve.good.octaves
        return Cell(f"{seen.low:.1f} to {seen.high:.1f}" if seen.shows_interval else NONE)

    columns: tuple[Column[Sensitivity], ...] = (
        *((Column("axis", lambda c: Cell(c.grid.axes[0]), numeric=False),) if several else ()),
        *_panel_column([curve.grid.panel for curve in known.curves], lambda c: c.grid.panel),
        Column("method", lambda c: Cell(c.grid.method, method=c.grid.method), numeric=False),
        Column("seeds", lambda c: Cell(str(c.grid.n), c.grid.n)),
        Column("best setting", lambda c: Cell(value_text(c.values[c.best]), float(c.values[c.best]))),
        Column("final there", lambda c: Cell.mean(c.curve[c.best], percent)),
        Column("good range, octaves", lambda c: Cell(range_text(c.good), c.good.octaves.mean)),
        Column("95% interval", interval),
        Column("remark", lambda c: Cell(open_end(c)), numeric=False),
        *(
            (Column("less plain policy gradient", difference), Column("verdict", verdict, numeric=False))
            if contrasts
            else ()
        ),
    )
    return Table.of(
        "sensitivity",
        f"The best setting of each method along {known.axes[0] if not several else 'each axis'}, and how wide its "
        "good range is: the octaves (doublings) within 3 points of its highest mean final accuracy, which is "
        "chosen on these seeds and so somewhat too high. Intervals by a bootstrap over seeds; differences use the "
        "same seeds and are Holm-adjusted over the methods of a panel.",
        columns,
        known.curves,
    )


def _place(curve: Sensitivity) -> tuple[str, str, str]:
    return curve.grid.axes[0], curve.grid.panel, curve.grid.method


def _panel_column(panels: Sequence[str], panel: Callable[[Row], str]) -> tuple[Column[Row], ...]:
    """A column of panels, where there are several."""
    return (Column("panel", lambda each: Cell(panel(each)), numeric=False),) if len(set(panels)) > 1 else ()

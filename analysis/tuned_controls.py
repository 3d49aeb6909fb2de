"""The controls of a sweep whose methods run at tuned points: no rule at a smaller step, on seeds that tuned nothing.

Both sides are at their best by other seeds, so the difference of both at their best is the plain paired contrast, with
the error of the choice of either point. At the same KL, plain policy gradient is interpolated between the rates it was
run at, its tuned one among them. With fewer epochs it keeps its tuned rate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from cppo_lab.analysis.claims import Planned
from cppo_lab.analysis.contrasts import Contrast, compare
from cppo_lab.analysis.controls import (
    AT_BEST,
    FEWER_EPOCHS,
    SAME_KL,
    Control,
    adjusted_controls,
    fewer_epochs,
    has_fewer_epochs,
    matched_rate,
    same_kl,
)
from cppo_lab.analysis.grids import RATE, Grid, grid_of, method_of, panel_less, value_text
from cppo_lab.analysis.grouping import short_names
from cppo_lab.analysis.run_table import Run, RunTable

ONE_RATE = "no other rate of plain policy gradient was run"


@dataclass(frozen=True)
class TunedGrid:
    """A method at its tuned point (one setting), and at every rate it was run at, the tuned one included."""

    best: Grid
    rates: Grid

    @property
    def point(self) -> str:
        """What was tuned, in words: `lr=1e-4, threshold=2`."""
        setting = self.best.runs[0][0].setting
        short = short_names(tuple(setting))
        return ", ".join(f"{short[key]}={value_text(value)}" for key, value in setting.items())


def has_tuned_runs(table: RunTable) -> bool:
    """Whether any of its runs is at a tuned point."""
    return any(run.setting for run in table.runs)


def find_tuned_controls(
    table: RunTable, no_rule: Collection[str], names: Mapping[str, str] | None = None
) -> list[Control]:
    """Every method of every panel that has plain policy gradient at its tuned point beside it; see `find_controls`."""
    found = tuned_grids(table.runs, names)
    made: list[Control] = []
    for panel in dict.fromkeys(each.best.panel for each in found):
        here = [each for each in found if each.best.panel == panel]
        baseline = next((each for each in here if each.best.method in no_rule), None)
        if baseline is None:
            continue
        fewer = [each.best for each in found if has_fewer_epochs(each.best, baseline.best)]
        others = [each for each in here if each.best.method not in no_rule]
        made += adjusted_controls([_control(each, baseline, fewer) for each in others])
    return made


def tuned_grids(runs: Sequence[Run], names: Mapping[str, str] | None = None) -> list[TunedGrid]:
    """Every method with runs at its tuned point, in every panel, in the order of the runs."""
    members: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        members.setdefault((tuned_panel(run), method_of(run, names)), []).append(_at_its_rate(run))
    found = []
    for (panel, method), its_runs in members.items():
        at_point = [run for run in its_runs if run.setting]
        if at_point:
            best, rates = (grid_of(panel, method, (RATE,), each) for each in (at_point, its_runs))
            found += [TunedGrid(best, rates)] if best.n else []
    return found


def tuned_panel(run: Planned | Run) -> str:
    """The panel of a run without its learning rate."""
    return panel_less(run, (RATE,)) if run.panel else ""


def _at_its_rate(run: Run) -> Run:
    rate = run.setting.get(RATE)
    return run if rate is None else replace(run, axes={**run.axes, RATE: f"{rate:g}"})


def tuned_contrasts(
    one: TunedGrid, other: TunedGrid, fewer: Sequence[Grid]
) -> tuple[dict[str, Contrast], str]:
    """The differences by the name of the control, and what is to be said of that at the same KL."""
    treatment, baseline = ([row[0] for row in each.best.runs] for each in (one, other))
    made = {AT_BEST: compare(treatment, baseline, (one.best.method, other.best.method))}
    if len(other.rates.points) < 2:
        remark = ONE_RATE
    else:
        matched, remark = same_kl(one.best, other.rates)
        if matched.estimate is not None:
            made[SAME_KL] = matched
    if fewer:
        made[FEWER_EPOCHS] = fewer_epochs(one.best, fewer)
    return made, remark


def _control(each: TunedGrid, baseline: TunedGrid, fewer: Sequence[Grid]) -> Control:
    controls, remark = tuned_contrasts(each, baseline, fewer)
    return Control(
        panel=each.best.panel,
        method=each.best.method,
        baseline=baseline.best.method,
        rate=float("nan"),
        at_one=None,
        controls=controls,
        why_not={SAME_KL: remark} if remark else {},
        point=each.point,
        baseline_point=baseline.point,
        matched=matched_rate(each.best, baseline.rates),
    )

"""The table of asymptotes and midpoints."""

from __future__ import annotations

from collections.abc import Callable

from cppo_lab.analysis.formatting import NONE, engineering, percent, points, significant
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.tables import Cell, Column, Table
from cppo_lab.analysis.sigmoid import DRAWS, LEAST_REACHED, Fit, fits, worth_showing
from cppo_lab.analysis.summary import Summary

Show = Callable[[float | None], str]


def scaling_table(study: Study, summary: Summary) -> Table | None:
    """How far each method gets, and how much compute half of that takes; None where every curve is too short."""
    axis, found = fits(study)
    if not worth_showing(found):
        return None
    baselines = {panel.panel: panel.baseline for panel in summary.panels}

    def fitted(group: Group) -> Fit | None:
        made = found[group.label]
        return made if isinstance(made, Fit) else None

    def parameter(group: Group, place: int, show: Show) -> Cell:
        made = fitted(group)
        if made is None:
            return Cell(NONE, "")
        sigmoid = made.sigmoid
        return Cell.of((sigmoid.asymptote, sigmoid.midpoint, sigmoid.exponent)[place], show)

    def interval(group: Group, place: int, show: Show) -> Cell:
        made = fitted(group)
        return _range(made.interval(place), show) if made else Cell(NONE, "")

    def against(group: Group, asymptotes: bool, show: Show) -> Cell:
        made, base = fitted(group), found.get(str(baselines.get(group.panel)))
        if made is None or not isinstance(base, Fit) or made is base:
            return Cell(NONE, "")
        seen = made.higher(base) if asymptotes else made.slower(base)
        return (
            Cell(NONE, "")
            if seen is None
            else Cell(f"{show(seen[0])} ({_range(seen[1:], show).text})", seen[0])
        )

    def reached(group: Group) -> Cell:
        made = fitted(group)
        return Cell.of(made.reached if made else None, percent)

    def why_not(group: Group) -> Cell:
        made = found[group.label]
        return Cell("" if isinstance(made, Fit) else made.reason)

    columns: tuple[Column[Group], ...] = (
        Column("method", lambda g: Cell(g.label, method=g.method), numeric=False),
        Column("asymptote", lambda g: parameter(g, 0, percent)),
        Column("95% interval of asymptote", lambda g: interval(g, 0, percent)),
        Column("midpoint", lambda g: parameter(g, 1, engineering)),
        Column("95% interval of midpoint", lambda g: interval(g, 1, engineering)),
        Column("exponent", lambda g: parameter(g, 2, significant)),
        Column("95% interval of exponent", lambda g: interval(g, 2, significant)),
        Column("gain made", reached),
        Column("asymptote against baseline", lambda g: against(g, True, points)),
        Column("midpoint over baseline's", lambda g: against(g, False, significant)),
        Column("not fitted", why_not, numeric=False),
    )
    return Table.of(
        "scaling",
        f"Asymptote and efficiency, over {axis.option}: the sigmoid start + (asymptote - start) / "
        "(1 + (midpoint / compute)^exponent) fitted to the mean curve of each method's finished runs (ScaleRL, "
        "arXiv:2510.13786). The asymptote says how far a method gets, the midpoint the compute of half of its gain. "
        f"Intervals: {DRAWS} bootstrap samples of the seeds, widened for their number; against the baseline in pairs "
        "where both have the same seeds; they hold as far as a sigmoid is the right curve. Gain made: by the last "
        "evaluation, of the gain to the asymptote. A curve that "
        f"has not bent, falls, or has made less than {LEAST_REACHED:.0%} of its gain is not fitted.",
        columns,
        study.grouping.groups,
    )


def _range(ends: tuple[float, ...], show: Show) -> Cell:
    low, high = ends
    return Cell(f"{show(low)} to {show(high)}", f"{low:.6g} to {high:.6g}")

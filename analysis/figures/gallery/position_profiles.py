"""Where in a response the policy moved away from the rollout policy, and where tokens were masked."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cppo_lab.analysis.figures import CannotDraw, figure, style
from cppo_lab.analysis.figures.data import NO_PROFILES, PROFILES, FigureData
from cppo_lab.analysis.figures.profiles import mean_by_position, relative_profiles

COLUMNS = (
    ("divergence_mean", "Mean divergence", False),
    ("divergence_top_decile", "Divergence, top decile", False),
    ("masked_share", "Tokens masked", True),
    ("induced_threshold_mean", "Effective threshold on D", False),
)


@figure(
    "position_profiles",
    title="By position in the response",
    section="mechanisms",
    caption="Mean divergence, its top decile, the share of tokens masked and the effective threshold on the "
    "divergence (c_t / w_t) by relative position, averaged over recorded steps and seeds, weighted by "
    "tokens. A method without a divergence threshold has no line in the last panel.",
    about="divergence, its top decile, masking and the effective threshold by position in the response",
    paper="Figure 2 of the CPPO paper",
    needs=(PROFILES,),
    per_panel=True,
    place=1,
)
def draw(data: FigureData) -> Figure:
    """One axes per quantity that was recorded."""
    profiles = {group: relative_profiles(data.study, group) for group in data.groups}
    profiles = {group: rows for group, rows in profiles.items() if not rows.empty}
    there = [column for column in COLUMNS if any(rows[column[0]].notna().any() for rows in profiles.values())]
    if not there:
        raise CannotDraw(NO_PROFILES)
    sheet, grid = style.small_multiples(len(there), len(there), 2.9, 3.1, (0.6, 0.0))
    for axes, (column, title, is_share) in zip(grid, there, strict=True):
        high = 0.0
        for group, rows in profiles.items():
            x, y = mean_by_position(rows, column)
            if len(x):
                small = {"linewidth": 1.8, "markevery": 4, "markersize": 4.5, "markeredgewidth": 0.6}
                axes.plot(x, y, **data.looks[group.method].line() | small)
                high = max(high, float(y.max()))
        axes.set_title(title)
        axes.set_xlim(-0.02, 1.02)
        style.position_axis(axes.xaxis)
        axes.set_xlabel("position in response")
        if is_share:
            style.percent_axis(axes, 0.0, min(1.0, max(0.005, 1.12 * high)))
        else:
            axes.set_ylim(0.0, 1.12 * high if high > 0 else 1.0)
            axes.yaxis.set_major_locator(MaxNLocator(5))
    style.name_methods(sheet, style.line_handles([group.method for group in profiles], data.looks))
    return sheet

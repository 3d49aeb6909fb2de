"""Distance between rollout and training log-probabilities before any update, by engine and weight format."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cppo_lab.analysis.figures import CannotDraw, Drawing, figure, style
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.looks import Look, looks_of
from cppo_lab.analysis.figures.profiles import mean_by_position
from cppo_lab.analysis.formatting import plural
from cppo_lab.analysis.load.study import Study

MEAN, P99 = "mismatch/logp_absdiff_mean", "mismatch/logp_absdiff_p99"
BY_POSITION = "mismatch_mean"
COLUMNS = ((MEAN, "Mean"), (P99, "99th percentile"))


@figure(
    "mismatch",
    title="Mismatch of rollout and training log-probabilities",
    section="stability",
    caption="|log π_old − log μ| of the sampled tokens: how far the sampler's log-probabilities are from the "
    "trainer's under the same weights, before the first update of a step. This is the mismatch that a "
    "trust region starts with. Thick lines are medians over runs, thin lines single runs; by position, "
    "means over recorded steps and runs, weighted by tokens. The legend gives engine and weight format; "
    "'same' is the precision of the policy.",
    about="mismatch of rollout and training log-probabilities by engine and weight format",
    place=3,
)
def draw(data: FigureData) -> Drawing:
    """Against steps and by position, one colour per engine and weight format."""
    study = data.study
    there = [
        (key, title) for key, title in COLUMNS if key in study.metrics and (study.metrics[key] > 0).any()
    ]
    if not there:
        raise CannotDraw("no run recorded a mismatch above zero")
    engines = engines_of(study)
    profiles = study.profiles[study.profiles["kind"] == "relative"].dropna(subset=[BY_POSITION])
    looks = looks_of(list(dict.fromkeys(engines)))
    cells = len(there) + (not profiles.empty)
    sheet, grid = style.small_multiples(cells, cells, 3.3, 3.2, (0.6, 0.0))
    for axes, (key, title) in zip(grid, there, strict=False):
        _against_steps(axes, study.metrics, key, engines, looks)
        axes.set_title(title)
        style.step_axis(axes, data.last_step)
        axes.set_xlabel("training step")
    grid[0].set_ylabel("|log π_old − log μ| (nats)")
    if not profiles.empty:
        _by_position(grid[-1], profiles, engines, looks)
    for axes in grid:
        if any(len(np.asarray(line.get_ydata())) for line in axes.lines):
            axes.set_yscale("log")
            style.log_axis(axes.yaxis)
    handles = [
        Line2D([], [], color=look.color, linestyle=look.linestyle, linewidth=2.2, label=name)
        for name, look in looks.items()
    ]
    style.name_methods(sheet, handles, columns=4)
    runs = [f"{name}: {plural(size, 'run')}" for name, size in engines.value_counts(sort=False).items()]
    return Drawing(sheet, f"Shown: {'; '.join(runs)}.")


def engines_of(study: Study) -> pd.Series:
    """The engine and weight format of every run, such as "vllm, bfloat16"; indexed by run."""

    def column(key: str, missing: str) -> pd.Series:
        found = study.runs.get(f"config.engine.{key}")
        return pd.Series(missing, study.runs.index) if found is None else found.fillna(missing).astype(str)

    return column("kind", "native") + ", " + column("weights", "same")


def _against_steps(
    axes: Axes, metrics: pd.DataFrame, key: str, engines: pd.Series, looks: dict[str, Look]
) -> None:
    # Zero has no place on a logarithmic axis.
    rows = metrics[metrics[key] > 0]
    for name, look in looks.items():
        members = rows[rows["run_id"].isin(engines.index[engines == name])]
        for _, run in members.groupby("run_id"):
            axes.plot(run["step"], run[key], color=look.color, linewidth=0.7, alpha=0.35)
        median = members.groupby("step")[key].median()
        axes.plot(median.index, median, **look.line(len(median)))


def _by_position(axes: Axes, profiles: pd.DataFrame, engines: pd.Series, looks: dict[str, Look]) -> None:
    for name, look in looks.items():
        members = profiles[profiles["run_id"].isin(engines.index[engines == name])]
        centres, values = mean_by_position(members, BY_POSITION)
        positive = values > 0
        axes.plot(centres[positive], values[positive], **look.line(int(positive.sum())))
    axes.set_title("Mean, by position")
    axes.set_xlabel("position in response")
    axes.set_xlim(-0.02, 1.02)
    style.position_axis(axes.xaxis)

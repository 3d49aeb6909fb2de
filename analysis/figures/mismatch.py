"""How far rollout and training log-probabilities are apart before any update, by engine and weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.profiles import weighted_profile
from cppo_lab.analysis.load.study import Study

MEAN, P99 = "mismatch/logp_absdiff_mean", "mismatch/logp_absdiff_p99"
BY_POSITION = "mismatch_mean"
COLUMNS = ((MEAN, "Mean"), (P99, "99th percentile"))


def engines_of(study: Study) -> pd.Series:
    """The engine of every run with what it holds the weights in, "vllm, bfloat16"; indexed by run."""

    def column(key: str, missing: str) -> pd.Series:
        found = study.runs.get(f"config.engine.{key}")
        return pd.Series(missing, study.runs.index) if found is None else found.fillna(missing).astype(str)

    return column("kind", "native") + ", " + column("weights", "same")


def mismatch(study: Study) -> Figure | None:
    """|log pi_old - log mu| of the sampled tokens against steps and by position, one colour per engine.

    Thick lines are medians over runs, thin ones single runs. None where no run recorded it.
    """
    engines = engines_of(study)
    there = [(key, title) for key, title in COLUMNS if _recorded(study.metrics, key)]
    if not there:
        return None
    profiles = study.profiles[study.profiles["kind"] == "relative"].dropna(subset=[BY_POSITION])
    names = list(dict.fromkeys(engines))
    looks = style.looks_of(names)
    cells = len(there) + (not profiles.empty)
    last = float(study.metrics["step"].max())
    with style.house_style():
        figure = style.sheet(3.3 * cells + 0.6, 3.2)
        for index, (key, title) in enumerate(there):
            axes = figure.add_subplot(1, cells, index + 1)
            _against_steps(axes, study.metrics, key, engines, looks)
            axes.set_title(title)
            style.step_axis(axes, last)
            axes.set_xlabel("training step")
        figure.axes[0].set_ylabel("|log π_old − log μ| (nats)")
        if not profiles.empty:
            _by_position(figure.add_subplot(1, cells, cells), profiles, engines, looks)
        for axes in figure.axes:
            _log_axis(axes)
        handles = [
            Line2D(
                [], [], color=looks[name].color, linestyle=looks[name].linestyle, linewidth=2.2, label=name
            )
            for name in names
        ]
        style.name_methods(figure, handles, columns=4)
        return figure


def caption(study: Study) -> str:
    """What the figure shows, or why there is none."""
    if not any(_recorded(study.metrics, key) for key, _ in COLUMNS):
        return "Cannot be drawn: no run recorded a mismatch above zero."
    sizes = engines_of(study).value_counts(sort=False)
    runs = "; ".join(f"{name}: {size} {'run' if size == 1 else 'runs'}" for name, size in sizes.items())
    return (
        "How far the sampler's log-probabilities of the sampled tokens are from the trainer's with the same weights, "
        "before any update of the step: the mismatch that a trust region starts with. Thick lines are medians over "
        f"runs, thin lines single runs ({runs}); by position, means over recorded steps and runs with the number of "
        "tokens as weight. 'same' is what the policy computes in."
    )


def _recorded(metrics: pd.DataFrame, key: str) -> bool:
    return key in metrics and bool((metrics[key] > 0).any())


def _against_steps(
    axes: Axes, metrics: pd.DataFrame, key: str, engines: pd.Series, looks: dict[str, style.Look]
) -> None:
    # Nothing at all between sampler and trainer has no place on a logarithmic axis.
    rows = metrics[metrics[key] > 0]
    for name, look in looks.items():
        members = rows[rows["run_id"].isin(engines.index[engines == name])]
        for _, run in members.groupby("run_id"):
            axes.plot(run["step"], run[key], color=look.color, linewidth=0.7, alpha=0.35)
        _line(axes, members.groupby("step")[key].median(), look)


def _by_position(
    axes: Axes, profiles: pd.DataFrame, engines: pd.Series, looks: dict[str, style.Look]
) -> None:
    for name, look in looks.items():
        members = profiles[profiles["run_id"].isin(engines.index[engines == name])]
        centres, values = weighted_profile(members, BY_POSITION)
        positive = values > 0
        _line(axes, pd.Series(values[positive], index=centres[positive]), look)
    axes.set_title("Mean, by position")
    axes.set_xlabel("position in response")
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))


def _line(axes: Axes, values: pd.Series, look: style.Look) -> None:
    axes.plot(
        values.index.to_numpy(),
        values.to_numpy(),
        color=look.color,
        linestyle=look.linestyle,
        linewidth=1.9,
        marker=look.marker,
        markersize=look.size,
        markeredgecolor=style.PAPER,
        markeredgewidth=0.7,
        markevery=max(1, len(values) // 12),
    )


def _log_axis(axes: Axes) -> None:
    drawn: npt.NDArray[np.float64] = np.concatenate(
        [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines] or [np.empty(0)]
    )
    if len(drawn):
        axes.set_yscale("log")
        style.log_axis(axes.yaxis)

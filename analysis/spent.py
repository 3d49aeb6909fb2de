"""What training had spent by each step of a run: updates, tokens, FLOPs, seconds, and KL moved.

Everything is derived from what a run records at every step, so that runs of older versions have it as well. Evaluations
are never counted: every method is evaluated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.run_table import KL

UPDATES = "train/updates"
_LENGTH = "rollout/length_mean"
_GRADED = "grader/"


@dataclass(frozen=True)
class SpentAxis:
    """A horizontal axis of curves. `option` names it in a choice, `label` on the axis, `says` in a sentence.

    reads: what `cumulative` derives it from, as a reason where no run has it.
    """

    key: str
    option: str
    label: str
    says: str
    reads: str
    cumulative: Callable[[Study], pd.Series]
    is_log: bool = False

    @property
    def metric(self) -> str:
        """Its column in the metrics of `with_spent`."""
        return f"spent/{self.key}"


def with_spent(study: Study, axis: SpentAxis) -> Study:
    """The study with what its runs had spent among the metrics of every step; NaN where it is not known."""
    return replace(study, metrics=study.metrics.assign(**{axis.metric: axis.cumulative(study)}))


def _steps(study: Study) -> pd.Series:
    return study.metrics["step"].astype(float)


def _updates(study: Study) -> pd.Series:
    return _summed(study, _column(study, UPDATES))


def _sampled(study: Study) -> pd.Series:
    return _summed(study, _sampled_per_step(study))


def _sampled_per_step(study: Study) -> pd.Series:
    """Response tokens of each step's rollout: every response is graded, once."""
    graded = [name for name in study.metrics if str(name).startswith(_GRADED)]
    if not graded:
        return _unknown(study)
    return study.metrics[graded].sum(axis=1, min_count=1) * _column(study, _LENGTH)


def _trained(study: Study) -> pd.Series:
    """Response tokens trained on, counted once for every epoch.

    Runs before this was recorded know their total alone. It is split over steps by updates and length of responses,
    since an update always takes as many groups.
    """
    weight = _column(study, UPDATES) * _column(study, _LENGTH)
    so_far = _summed(study, weight)
    runs = study.metrics["run_id"]
    total = runs.map(study.runs["tokens_trained"].astype(float))
    split = so_far / so_far.groupby(runs).transform("max").where(lambda most: most > 0) * total
    return _of_timings(study, "tokens_trained").fillna(split).where(study.metrics["step"] > 0, 0.0)


def _flops(study: Study) -> pd.Series:
    runs = study.metrics["run_id"]
    parameters = runs.map(
        study.runs["active_parameters"].astype(float).fillna(study.runs["parameters"].astype(float))
    )
    per_token = runs.map(study.runs.apply(_flops_per_trained_token, axis=1)).astype(float)
    return parameters * (4.0 * _sampled(study) + per_token * _trained(study))


def _flops_per_trained_token(run: pd.Series) -> float:
    """Per parameter: forward and backward, and the forward pass again where activations are recomputed."""
    return 8.0 if run.get("config.model.gradient_checkpointing") is True else 6.0


def _seconds(study: Study) -> pd.Series:
    return _summed(study, _of_timings(study, "rollout_s") + _of_timings(study, "train_s"))


def _kl(study: Study) -> pd.Series:
    # Without an update there is no KL to record, and none is spent.
    idle = _column(study, UPDATES) == 0
    return _summed(study, _column(study, KL).mask(idle, 0.0))


def _column(study: Study, name: str) -> pd.Series:
    return study.metrics[name] if name in study.metrics else _unknown(study)


def _unknown(study: Study) -> pd.Series:
    return pd.Series(np.nan, index=study.metrics.index)


def _of_timings(study: Study, name: str) -> pd.Series:
    """A column of the timings at the steps of the metrics."""
    if name not in study.timings:
        return _unknown(study)
    known = study.timings.set_index(["run_id", "step"])[name]
    return known.reindex(pd.MultiIndex.from_frame(study.metrics[["run_id", "step"]])).set_axis(
        study.metrics.index
    )


def _summed(study: Study, per_step: pd.Series) -> pd.Series:
    """Sums over the steps of each run, from 0 at the starting policy; NaN from the first step that is unknown."""
    spent = per_step.where(study.metrics["step"] > 0, 0.0)
    runs = study.metrics["run_id"]
    is_known = spent.notna().groupby(runs).cummin()
    return spent.groupby(runs).cumsum().where(is_known)


_PER_RUN = "A point is an evaluation: the mean accuracy at the median of what the runs had spent by then."
AXES: Mapping[str, SpentAxis] = {
    axis.key: axis
    for axis in (
        SpentAxis("steps", "training steps", "training step", "", "steps", _steps),
        SpentAxis(
            "updates",
            "optimizer updates",
            "optimizer updates",
            f"Horizontal: optimizer updates. {_PER_RUN}",
            UPDATES,
            _updates,
        ),
        SpentAxis(
            "tokens",
            "tokens sampled",
            "tokens sampled",
            "Horizontal: response tokens of the rollouts trained on so far, those of discarded groups included. "
            + _PER_RUN,
            f"{_LENGTH} and the graded responses",
            _sampled,
        ),
        SpentAxis(
            "flops",
            "training FLOPs",
            "training FLOPs",
            "Horizontal: floating-point operations by the model 6N per trained response token and epoch (8N where "
            "activations are recomputed), and 2N each to sample a token and to recompute its log-probability, with N "
            "active parameters. Attention, prompts, a critic, a reference policy and evaluations are not counted. "
            + _PER_RUN,
            "the tokens and parameters of a run",
            _flops,
        ),
        SpentAxis(
            "time",
            "wall time",
            "wall time of rollouts and updates (noisy where the machine is shared)",
            "Horizontal: measured seconds of sampling and training, evaluations left out. They depend on what else the "
            "machine did at the time: compare methods by FLOPs or tokens unless it was idle. " + _PER_RUN,
            "timings",
            _seconds,
        ),
        SpentAxis(
            "kl",
            "KL moved",
            "cumulative KL from the rollout policies (nats per token)",
            "Horizontal: the k3 estimate of the KL divergence per token from each step's rollout policy, averaged over "
            "the step's updates and summed over steps. It is the length of the path, not the distance from the "
            "starting policy. " + _PER_RUN,
            KL,
            _kl,
            is_log=True,
        ),
    )
}
DEFAULT_AXIS = "steps"

"""The learning rate of each update: a warm-up, a schedule over the run and a control by what is sampled, multiplied.

A warm-up counts the updates taken. A schedule counts those planned, as if no prompt were ever left out: it ends with
the run, and two methods have the same rate at the same step however many prompts dynamic sampling drops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from cppo_lab.config.schema import Trainer
from cppo_lab.objectives.log_ratios import read_logp


def warmup_factor(updates: int, warmup: int) -> float:
    """Linear over the first `warmup` updates; `updates` have been taken."""
    return min(1.0, (updates + 1) / warmup) if warmup else 1.0


def schedule_factor(
    kind: Literal["constant", "linear", "cosine"], position: int, *, planned: int, warmup: int, floor: float
) -> float:
    """From 1, at the end of the warm-up, toward `floor`, which the update after the last of `planned` would have.

    `position` is the update's place among the planned ones, from 0.
    """
    if kind == "constant" or position < warmup:
        return 1.0
    share = (position - warmup) / (planned - warmup)
    if kind == "linear":
        return 1 - (1 - floor) * share
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def row_log_weights(logp: Tensor, rollout_logp: Tensor, mask: Tensor) -> Tensor:
    """log of prod pi / mu of each response [B], float64, from log-probabilities of its tokens [B, T]."""
    return (read_logp(logp, mask).double() - read_logp(rollout_logp, mask).double()).sum(-1)


def ess_share(log_weights: Tensor) -> float:
    """Effective sample size (sum w)^2 / sum w^2 of weights [N], divided by N; 1 without any."""
    if len(log_weights) == 0:
        return 1.0
    weights = (log_weights - log_weights.max()).exp()
    return float(weights.sum().square() / weights.square().sum() / len(weights))


class LengthDecay:
    """Halves the rate every `period_factor` times the step of the surge, from that step on, down to `floor`.

    A surge is the first mean response length above `multiple` times the mean of the first `window` steps.
    """

    def __init__(self, *, multiple: float, window: float, period_factor: float, floor: float) -> None:
        self._multiple, self._window, self._period_factor = multiple, window, period_factor
        self._floor = floor
        self._first: list[float] = []
        self.surge: int | None = None
        """The step of the surge; None before it."""

    def factor(self, step: int, length: float) -> float:
        """The factor at `step` (from 0), whose mean response length is `length`; to be called once per step."""
        if len(self._first) < self._window:
            self._first.append(length)
        elif self.surge is None and length > self._multiple * sum(self._first) / self._window:
            self.surge = step
        if self.surge is None:
            return 1.0
        halvings = math.floor((step - self.surge) / (self._period_factor * self.surge))
        return max(self._floor, 0.5**halvings)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"first": list(self._first), "surge": self.surge}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._first, self.surge = list(state["first"]), state["surge"]


class LearningRate:
    """The factor on the learning rate of each update of a run, with the state that a checkpoint must hold."""

    def __init__(self, settings: Trainer) -> None:
        self._settings = settings
        self._decay: LengthDecay | None = None
        if settings.lr_control == "length_decay":
            self._decay = LengthDecay(**settings.length_decay)
        self._of_step = 1.0
        self._ess_shares: list[float] = []
        self._last = math.nan

    @property
    def is_constant(self) -> bool:
        """Whether there is neither a schedule nor a control."""
        return self._settings.lr_schedule == "constant" and self._settings.lr_control == "none"

    def begin_step(self, step: int, length: float) -> None:
        """Take note of a training step (from 0) and the mean length of its responses, before its updates."""
        self._ess_shares, self._last = [], math.nan
        self._of_step = 1.0 if self._decay is None else self._decay.factor(step, length)

    def factor(self, updates: int, position: int, log_weights: Tensor | None) -> float:
        """The factor of the next update, after `updates` taken ones, at place `position` among those planned.

        `log_weights` [N] are those of its responses (`row_log_weights`); None unless the control is by ESS.
        """
        settings = self._settings
        self._last = self._of_step * schedule_factor(
            settings.lr_schedule,
            position,
            planned=settings.planned_updates,
            warmup=settings.lr_warmup_updates,
            floor=settings.lr_floor,
        )
        self._last *= warmup_factor(updates, settings.lr_warmup_updates)
        if log_weights is not None:
            self._ess_shares.append(ess_share(log_weights))
            self._last *= min(1.0, self._ess_shares[-1] / settings.lr_ess_base) ** settings.lr_ess_exponent
        return self._last

    def metrics(self) -> dict[str, float]:
        """The factor of the step's last update, and the mean ESS share; nothing without a schedule or control."""
        found = {} if self.is_constant else {"train/lr_factor": self._last}
        if self._settings.lr_control == "ess":
            found["train/ess_share"] = _mean(self._ess_shares)
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {} if self._decay is None else self._decay.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        if self._decay is not None:
            self._decay.load_state_dict(state)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan

"""What is recorded of the updates of one training step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from cppo_lab.diagnostics.mask_overlap import MaskOverlapCounter
from cppo_lab.diagnostics.masked_tokens import MaskedTokenCounter
from cppo_lab.diagnostics.metrics import Diagnostics
from cppo_lab.diagnostics.position_profiles import PositionProfiler
from cppo_lab.diagnostics.token_traces import TokenRecorder
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.objective import TokenObjective
from cppo_lab.objectives.pooled import Statistics
from cppo_lab.training.experience import Experience

Metrics = dict[str, float]


@dataclass
class StepRecord:
    """What is recorded of the updates of one step."""

    diagnostics: Diagnostics
    profiler: PositionProfiler | None
    recorder: TokenRecorder | None
    masked_tokens: MaskedTokenCounter | None = None
    overlap: MaskOverlapCounter | None = None
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    critic: list[tuple[float, float]] = field(default_factory=list)
    statistics: dict[str, list[float]] = field(default_factory=dict)
    lr: float = math.nan

    def observe(
        self, experience: Experience, rows: Tensor, batch: TokenBatch, objective: TokenObjective
    ) -> None:
        """Record the responses `rows` [N] of an update."""
        self.diagnostics.update(batch, objective)
        if self.profiler is not None:
            self.profiler.update(batch, objective)
        if self.recorder is not None:
            self.recorder.update(rows, batch, objective)
        if self.overlap is not None:
            self.overlap.update(batch, objective)
        if self.masked_tokens is not None:
            width = batch.logp.shape[1]
            self.masked_tokens.update(experience.rollout.responses[rows, :width], batch, objective)

    def add_statistics(self, statistics: Statistics) -> None:
        """Record the finite scalars among the statistics of one minibatch."""
        for name, value in statistics.items():
            if value.dim() == 0 and bool(value.isfinite()):
                self.statistics.setdefault(name, []).append(float(value))

    def add(self, loss: float, norm: float, critic: tuple[float, float] | None) -> None:
        """Record one update: loss and gradient norm of the policy and of the critic."""
        self.losses.append(loss)
        self.norms.append(norm)
        if critic is not None:
            self.critic.append(critic)

    def metrics(self, clip: float) -> Metrics:
        """Means over the updates; NaN without any."""
        metrics = {
            "train/updates": float(len(self.norms)),
            "train/lr": self.lr,
            "train/loss": _mean(self.losses),
            "train/grad_norm": _mean(self.norms),
            "train/grad_norm_max": max(self.norms, default=math.nan),
            "train/grad_clipped_share": _mean([float(norm > clip) for norm in self.norms]),
        }
        metrics |= {f"minibatch/{name}": _mean(values) for name, values in self.statistics.items()}
        if self.critic:
            metrics["critic/loss"] = _mean([loss for loss, _ in self.critic])
            metrics["critic/grad_norm"] = _mean([norm for _, norm in self.critic])
        return metrics


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan

"""What the policy learns from one rollout: the minibatch updates of a training step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from cppo_lab.config import RunConfig
from cppo_lab.experience import Experience, live_groups, minibatch_order
from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.diagnostics import Diagnostics
from cppo_lab.objectives.objective import token_objective
from cppo_lab.objectives.profiles import PositionProfiler
from cppo_lab.objectives.thresholds import MaskedShareController
from cppo_lab.policies.loading import Policy
from cppo_lab.policies.logprobs import token_statistics

Metrics = dict[str, float]


class Diverged(Exception):
    """The run cannot go on: a loss or a gradient is no longer finite."""


class Learner:
    """Owns the optimizer, and the counts and factors that a checkpoint must hold."""

    def __init__(self, config: RunConfig, policy: Policy) -> None:
        self.config, self.policy = config, policy
        self.algo = config.algo.with_horizon(config.task.response_limit)
        self.optimizer = torch.optim.AdamW(
            policy.network.parameters(),
            lr=config.trainer.lr,
            betas=config.trainer.betas,
            weight_decay=config.trainer.weight_decay,
        )
        self.updates = 0
        self.trained_tokens = 0
        self._controller = MaskedShareController(self._controlled_schedule())

    def _controlled_schedule(self) -> Any:
        region = self.algo.trust_region
        controlled = region.schedule.kind == "target_share"
        return region.schedule if controlled else region.budget.schedule

    def learn(self, experience: Experience, step: int, profiler: PositionProfiler | None = None) -> Metrics:
        """All updates of training step `step` (from 0). Raises Diverged when a loss or gradient is not finite."""
        network = self.policy.network.train()
        diagnostics = Diagnostics()
        losses, norms = [], []
        live = live_groups(experience, self.algo)
        for epoch in range(self.config.trainer.epochs):
            for rows in minibatch_order(self.config, live, step, epoch):
                loss, norm = self._update(experience, rows, step, diagnostics, profiler)
                losses.append(loss)
                norms.append(norm)
        network.eval()
        found = diagnostics.result()
        if self.algo.requirements.needs_threshold_controller:
            found["mask/threshold_factor"] = self._controller.factor
            self._controller.update(found["mask/share"])
        return found | self._update_metrics(losses, norms)

    def _update_metrics(self, losses: list[float], norms: list[float]) -> Metrics:
        count = len(norms)
        clip = self.config.trainer.grad_clip or math.inf
        return {
            "train/updates": float(count),
            "train/loss": sum(losses) / count if count else math.nan,
            "train/grad_norm": sum(norms) / count if count else math.nan,
            "train/grad_norm_max": max(norms, default=math.nan),
            "train/grad_clipped_share": sum(norm > clip for norm in norms) / count if count else math.nan,
            "train/lr": self._lr(),
        }

    def _update(
        self,
        experience: Experience,
        rows: Tensor,
        step: int,
        diagnostics: Diagnostics,
        profiler: PositionProfiler | None,
    ) -> tuple[float, float]:
        """One optimizer update on the responses `rows` [N]; returns the loss and the gradient norm."""
        trainer = self.config.trainer
        whole = denominator(experience.rollout.response_mask[rows], self.algo.aggregation)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in rows.split(trainer.microbatch_sequences or len(rows)):
            batch = self.token_batch(experience, part)
            objective = token_objective(
                batch,
                self.algo,
                progress=step / max(1, trainer.steps - 1),
                step=step,
                threshold_factor=self._controller.factor,
            )
            loss = aggregate(objective.loss, batch.response_mask, self.algo.aggregation, whole)
            loss.backward()
            total += float(loss.detach())
            diagnostics.update(batch, objective)
            if profiler is not None:
                profiler.update(batch, objective)
        parameters = self.policy.network.parameters()
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, trainer.grad_clip or math.inf))
        if not math.isfinite(total) or not math.isfinite(norm):
            raise Diverged(
                f"diverged at step {step + 1}, update {self.updates + 1}: "
                f"loss {total:g}, gradient norm {norm:g}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        self.optimizer.step()
        self.updates += 1
        self.trained_tokens += int(experience.rollout.response_mask[rows].sum())
        return total, norm

    def _lr(self) -> float:
        warmup = self.config.trainer.lr_warmup_updates
        return self.config.trainer.lr * (min(1.0, (self.updates + 1) / warmup) if warmup else 1.0)

    def token_batch(self, experience: Experience, rows: Tensor) -> TokenBatch:
        """The policy's present view of the responses `rows` [N], with everything the method asks for."""
        rollout = experience.rollout.rows(rows)
        needs = self.algo.requirements
        width = rollout.response_mask.shape[1]
        statistics = token_statistics(
            self.policy.network,
            rollout.tokens,
            rollout.attention_mask,
            rollout.prompt_width,
            temperature=self.config.trainer.temperature,
            chosen=rollout.topk_ids if needs.needs_topk else None,
            full=needs.needs_full_distribution,
            entropy_gradient=needs.needs_entropy,
        )
        topk = full = None
        if (
            statistics.chosen_logp is not None
            and rollout.topk_ids is not None
            and rollout.topk_logp is not None
        ):
            contains = (rollout.topk_ids == rollout.responses.unsqueeze(-1)).any(-1)
            topk = TopK(rollout.topk_logp, statistics.chosen_logp, contains)
        if statistics.log_distribution is not None and rollout.log_distribution is not None:
            full = FullDistributions(rollout.log_distribution, statistics.log_distribution)
        order = experience.weight_order
        return TokenBatch(
            logp=statistics.logp,
            rollout_logp=rollout.logp,
            advantages=experience.advantages[rows],
            response_mask=rollout.response_mask,
            old_logp=experience.old_logp[rows, :width],
            entropy=statistics.entropy,
            topk=topk,
            full=full,
            weight_order=None if order is None else order[rows, :width],
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the policy's weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "trained_tokens": self.trained_tokens,
            "controller": self._controller.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.trained_tokens = state["updates"], state["trained_tokens"]
        self._controller.load_state_dict(state["controller"])


def profile_rows(profiler: PositionProfiler, step: int) -> list[dict[str, Any]]:
    """A step's position profiles as rows of profiles.jsonl."""
    return [{"step": step, **asdict(profile)} for profile in (profiler.relative(), profiler.absolute())]

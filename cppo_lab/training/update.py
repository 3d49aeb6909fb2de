"""The update phase of a training step: minibatch updates of the policy, and of a critic, from one rollout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypedDict

import torch
from torch import Tensor

from cppo_lab.config.schema import Trainer
from cppo_lab.diagnostics.mask_overlap import MaskOverlapCounter
from cppo_lab.diagnostics.masked_tokens import MaskedTokenCounter
from cppo_lab.diagnostics.metrics import Diagnostics
from cppo_lab.diagnostics.position_profiles import PositionProfiler
from cppo_lab.diagnostics.token_traces import TokenRecorder
from cppo_lab.models.implementation import is_by_lab
from cppo_lab.models.loading import Policy
from cppo_lab.models.logprobs import hidden_statistics, response_hidden
from cppo_lab.models.value_head import Critic
from cppo_lab.objectives.advantages import zero_variance
from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.critics import value_loss
from cppo_lab.objectives.objective import batch_statistics, token_objective
from cppo_lab.objectives.pooled import Statistics
from cppo_lab.objectives.spec import AggregationSpec, AlgoSpec, Requirements
from cppo_lab.objectives.thresholds import controller_of
from cppo_lab.rng import Stream, torch_stream
from cppo_lab.rollouts.rollout import Rollout
from cppo_lab.training.experience import Experience, minibatch_order
from cppo_lab.training.learning_rate import LearningRate, row_log_weights
from cppo_lab.training.microbatches import microbatches
from cppo_lab.training.recompute import recompute_logp
from cppo_lab.training.step_record import Metrics, StepRecord

BeforeUpdate = Callable[[Experience, Tensor], None]

_TOKEN_MEAN = AggregationSpec(kind="token_mean")


class Place(TypedDict):
    """Where the schedules of thresholds are."""

    progress: float
    step: int
    threshold_factor: float


class Diverged(Exception):
    """A loss or a gradient is no longer finite."""


class Learner:
    """The optimizer and the critic, and the counts and factors that a checkpoint must hold.

    `algo` has its horizon filled in; `minibatch_seed` seeds the order of minibatches.
    """

    def __init__(self, policy: Policy, algo: AlgoSpec, settings: Trainer, minibatch_seed: int) -> None:
        self.policy, self.algo, self.settings, self._minibatch_seed = policy, algo, settings, minibatch_seed
        self.critic: Critic | None = None
        if algo.requirements.needs_values:
            self.critic = Critic(policy.network, algo.critic.backbone)
        self.optimizer = self._make_optimizer()
        self.updates = 0
        self.trained_tokens = 0
        self._controller = controller_of(algo.trust_region)
        self._learning_rate = LearningRate(settings)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        groups = [{"params": trained(self.policy.network), "base_lr": settings.lr}]
        if self.critic is not None:
            rate = self.algo.critic.learning_rate or settings.lr
            groups.append({"params": self.critic_parameters(), "base_lr": rate})
        return torch.optim.AdamW(
            groups, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
        )

    def critic_parameters(self) -> list[torch.nn.Parameter]:
        """The critic's own parameters."""
        return [] if self.critic is None else trained(self.critic)

    def learn(
        self,
        experience: Experience,
        step: int,
        profiler: PositionProfiler | None = None,
        recorder: TokenRecorder | None = None,
        overlap: MaskOverlapCounter | None = None,
        masked_tokens: MaskedTokenCounter | None = None,
        before_update: BeforeUpdate | None = None,
    ) -> Metrics:
        """All updates of training step `step` (from 0). Raises Diverged when a loss or gradient is not finite.

        `overlap` is updated in the last epoch only, when the policy has moved furthest. `before_update` is called with
        the experience and the rows of each minibatch, and leaves weights and optimizer as they are.
        """
        log_weights = self._log_weights(experience)
        network = self.policy.network.train()
        taken = StepRecord(Diagnostics(), profiler, recorder, masked_tokens)
        self._learning_rate.begin_step(step, experience.metrics["rollout/length_mean"])
        live = experience.live.nonzero().flatten().tolist()
        for epoch in range(self.settings.epochs):
            taken.overlap = overlap if epoch == self.settings.epochs - 1 else None
            order = minibatch_order(self.settings, self._minibatch_seed, live, step, epoch)
            for place, rows in enumerate(order, epoch * self.settings.updates_per_epoch):
                if before_update is not None:
                    before_update(experience, rows)
                seen = None if log_weights is None else log_weights[rows][experience.loss_mask[rows].any(-1)]
                position = step * self.settings.updates_per_step + place
                factor = self._learning_rate.factor(self.updates, position, seen)
                self._update(experience, rows, step, factor, taken)
        network.eval()
        metrics = taken.diagnostics.result() | taken.metrics(self.settings.grad_clip or math.inf)
        metrics |= self._learning_rate.metrics()
        if self.algo.requirements.needs_threshold_controller:
            metrics["mask/threshold_factor"] = self._controller.factor
            self._controller.update(metrics["mask/share"])
        return metrics

    def _log_weights(self, experience: Experience) -> Tensor | None:
        """`row_log_weights` [B] under the weights at the start of the step; None where nothing reads them."""
        if self.settings.lr_control != "ess":
            return None
        rollout, logp = experience.rollout, experience.old_logp
        if rollout.policy_version != self.updates:
            logp = self._reread(rollout)
        return row_log_weights(logp, rollout.logp, experience.loss_mask)

    def _reread(self, rollout: Rollout) -> Tensor:
        """log pi of a rollout's tokens [B, T] under the present weights."""
        return recompute_logp(
            self.policy.network,
            self.policy,
            rollout,
            settings=self.settings,
        )

    def _update(
        self, experience: Experience, rows: Tensor, step: int, factor: float, taken: StepRecord
    ) -> None:
        """One optimizer update on the responses `rows` [N], at `factor` times the learning rate.

        None is taken where all groups of the rollout have equal rewards and the gradient is zero.
        """
        settings = self.settings
        mask = experience.loss_mask[rows]
        policy_whole = denominator(mask, self.algo.aggregation)
        value_whole = denominator(mask, _TOKEN_MEAN)
        self.optimizer.zero_grad(set_to_none=True)
        total = value_total = 0.0
        parts = microbatches(
            experience.rollout,
            rows,
            sequences=settings.microbatch_sequences,
            tokens=settings.microbatch_tokens,
            by_length=not is_by_lab(self.policy.network),
        )
        statistics = self._statistics(experience, parts, step)
        taken.add_statistics(statistics)
        for part in parts:
            loss, value = self._losses(experience, part, step, policy_whole, value_whole, statistics, taken)
            if value is None:
                loss.backward()
            elif self._critic_alone(step):
                (self.algo.critic.coefficient * value).backward()
            else:
                (loss + self.algo.critic.coefficient * value).backward()
            total += float(loss.detach())
            value_total += 0.0 if value is None else float(value.detach())
        norm = self._clipped_norm(self.policy.network.parameters())
        critic_norm = self._clipped_norm(self.critic_parameters())
        if not all(map(math.isfinite, (total, value_total, norm, critic_norm))):
            raise Diverged(
                f"diverged at step {step + 1}, update {self.updates + 1}: "
                f"loss {total:g}, gradient norm {norm:g}"
            )
        if norm == 0 and critic_norm == 0 and bool(zero_variance(experience.rewards).all()):
            # Nothing was learnt from this rollout, and Adam's momentum alone would move the policy.
            return
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        taken.lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.updates += 1
        self.trained_tokens += int(mask.sum())
        taken.add(total, norm, None if self.critic is None else (value_total, critic_norm))

    def _losses(
        self,
        experience: Experience,
        rows: Tensor,
        step: int,
        policy_whole: Tensor,
        value_whole: Tensor,
        statistics: Statistics,
        taken: StepRecord,
    ) -> tuple[Tensor, Tensor | None]:
        """The policy's and the critic's share of the minibatch's losses, from the responses `rows` [N]."""
        with self.policy.computing():
            batch, values = self.token_batch(experience, rows, alone=self._critic_alone(step))
        objective = token_objective(batch, self.algo, **self.place(step), statistics=statistics)
        taken.observe(experience, rows, batch, objective)
        loss = aggregate(objective.loss, batch.response_mask, self.algo.aggregation, policy_whole)
        if values is None or experience.values is None or experience.returns is None:
            return loss, None
        width = values.shape[1]
        error = value_loss(
            values,
            experience.values[rows, :width],
            experience.returns[rows, :width],
            self.algo.critic.value_clip,
        )
        value = aggregate(error, batch.response_mask, _TOKEN_MEAN, value_whole)
        return loss, value

    @torch.no_grad()
    def _statistics(self, experience: Experience, parts: Sequence[Tensor], step: int) -> Statistics:
        """What the method reads of the whole minibatch, whose micro-batches are `parts`."""
        if not self.algo.requirements.needs_statistics:
            return {}

        def batches() -> Iterator[TokenBatch]:
            for rows in parts:
                with self.policy.computing():
                    batch, _ = self.token_batch(experience, rows)
                yield batch

        return batch_statistics(batches(), self.algo, **self.place(step))

    def place(self, step: int) -> Place:
        """Where the schedules of thresholds are at training step `step` (from 0)."""
        progress = step / max(1, self.settings.steps - 1)
        return {"progress": progress, "step": step, "threshold_factor": self._controller.factor}

    def _critic_alone(self, step: int) -> bool:
        """Whether only the critic is trained yet: the policy then gets no gradient and no weight decay."""
        return self.critic is not None and step < self.algo.critic.warmup_steps

    def _clipped_norm(self, parameters: Iterable[torch.nn.Parameter]) -> float:
        """Global L2 norm of the gradients before clipping; they are clipped in place."""
        limit = self.settings.grad_clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(parameters, limit))

    def token_batch(
        self, experience: Experience, rows: Tensor, alone: bool = False, needs: Requirements | None = None
    ) -> tuple[TokenBatch, Tensor | None]:
        """The responses `rows` [N] under the present policy, with all tensors of `needs`; values [N, T].

        Without `needs`, with those of the method.
        """
        rollout = experience.rollout.rows(rows)
        needs = needs or self.algo.requirements
        width = rollout.response_mask.shape[1]
        inputs = (rollout.tokens, rollout.attention_mask, rollout.prompt_width)
        hidden = response_hidden(self.policy.network, *inputs)
        values = None
        if self.critic is not None:
            shared = self.critic.is_shared
            values = (
                self.critic.of_hidden(hidden.detach() if alone else hidden)
                if shared
                else self.critic.values(self.policy.network, *inputs)
            )
        statistics = hidden_statistics(
            self.policy.network,
            hidden,
            rollout.responses,
            rollout.response_mask,
            temperature=self.settings.temperature,
            chosen=rollout.topk_ids if needs.needs_topk else None,
            full=needs.needs_full_distribution,
            entropy_gradient=needs.needs_entropy,
            collision=needs.needs_collision,
        )

        def cut(columns: Tensor | None) -> Tensor | None:
            return None if columns is None else columns[rows, :width]

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
        batch = TokenBatch(
            logp=statistics.logp,
            rollout_logp=rollout.logp,
            advantages=experience.advantages[rows, :width],
            response_mask=experience.loss_mask[rows, :width],
            old_logp=cut(experience.old_logp),
            reference_logp=cut(experience.reference_logp),
            entropy=statistics.entropy,
            topk=topk,
            full=full,
            weight_order=cut(experience.weight_order),
            rollout_entropy=rollout.entropy,
            version_lag=torch.full_like(rollout.responses, experience.version_lag),
            selection_order=cut(self._selection_order(experience)) if needs.needs_selection_order else None,
            prompt=experience.prompts[rows],
            collision=statistics.collision,
            vocabulary=self.policy.network.get_output_embeddings().weight.shape[0],
        )
        return batch, values

    def _selection_order(self, experience: Experience) -> Tensor:
        """Sort keys of all tokens of the rollout [B, T], drawn anew for every update."""
        rows, width = experience.loss_mask.shape
        generator = torch_stream(self._minibatch_seed, Stream.SELECTION, self.updates)
        # Column by column: a token's key depends on no response's length.
        return torch.rand((width, rows), generator=generator).T.to(experience.loss_mask.device)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the policy's weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "critic": None if self.critic is None else self.critic.state_dict(),
            "updates": self.updates,
            "trained_tokens": self.trained_tokens,
            "controller": self._controller.state_dict(),
            "learning_rate": self._learning_rate.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])
        self.updates, self.trained_tokens = state["updates"], state["trained_tokens"]
        self._controller.load_state_dict(state["controller"])
        self._learning_rate.load_state_dict(state.get("learning_rate", {}))


def trained(network: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def profile_rows(profiler: PositionProfiler, step: int) -> list[dict[str, Any]]:
    """Position profiles of a step as rows of profiles.jsonl."""
    return [{"step": step, **asdict(profile)} for profile in (profiler.relative(), profiler.absolute())]

"""The training loop: sample, grade, advantages, several updates per rollout, evaluate, checkpoint."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cppo_lab.config import RunConfig
from cppo_lab.evaluation import Evaluation, evaluate
from cppo_lab.experience import Experience, collect, live_groups, minibatch_order
from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import FullDistributions, TokenBatch, TopK
from cppo_lab.objectives.diagnostics import Diagnostics
from cppo_lab.objectives.objective import token_objective
from cppo_lab.policies.loading import Policy
from cppo_lab.policies.logprobs import token_statistics
from cppo_lab.rollouts.rollout import RolloutEngine
from cppo_lab.runs.checkpoint import load_state, save_checkpoint
from cppo_lab.runs.folder import RunFolder
from cppo_lab.tasks.problem import Task

Metrics = dict[str, float]
OnStep = Callable[[int, Mapping[str, Any]], None]


class Diverged(Exception):
    """The run cannot go on: a loss or a gradient is no longer finite."""


@dataclass
class Parts:
    """What a run is made of besides its configuration."""

    task: Task
    policy: Policy
    engine: RolloutEngine
    evaluation_engine: RolloutEngine
    folder: RunFolder


class Trainer:
    """Owns one policy on one device, and the state that a checkpoint must hold."""

    def __init__(self, config: RunConfig, parts: Parts, on_step: OnStep | None = None) -> None:
        self.config, self.parts, self._on_step = config, parts, on_step
        self.algo = config.algo.with_horizon(config.task.response_limit)
        network = parts.policy.network
        self.optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=config.trainer.lr,
            betas=config.trainer.betas,
            weight_decay=config.trainer.weight_decay,
        )
        self.step = 0
        self.updates = 0
        self.tokens = {"sampled": 0, "trained": 0}
        self.best: tuple[float, int] = (-math.inf, 0)
        # Rollouts sampled but not yet trained on; longer than one step's only with staleness.
        self.pending: deque[Experience] = deque()

    def run(self) -> None:
        """Train from the last checkpoint, or from the start, to the last step."""
        if not self._resume():
            self._log(0, self._evaluate_and_keep_best(0), {})
            self._checkpoint()
        while self.step < self.config.trainer.steps:
            started = time.perf_counter()
            metrics, timings = self._train_step()
            self.step += 1
            metrics |= self._evaluation_due(timings)
            timings["step_s"] = time.perf_counter() - started
            self._log(self.step, metrics, timings)
            if self.step % self.config.trainer.checkpoint_every == 0 or self._is_last():
                self._checkpoint()

    def _is_last(self) -> bool:
        return self.step == self.config.trainer.steps

    # One step.

    def _train_step(self) -> tuple[Metrics, dict[str, float]]:
        started = time.perf_counter()
        while len(self.pending) <= self.config.trainer.staleness:
            self._sample_ahead(self.step + len(self.pending))
        experience = self.pending.popleft()
        sampled = time.perf_counter()
        diagnostics = Diagnostics()
        metrics = dict(experience.metrics)
        metrics |= self._learn(experience, diagnostics)
        metrics |= diagnostics.result()
        trained = time.perf_counter()
        self._write_samples(experience)
        timings = {"rollout_s": sampled - started, "train_s": trained - sampled}
        timings["tokens_per_s"] = float(experience.rollout.response_mask.sum()) / (trained - started)
        return metrics, timings

    def _sample_ahead(self, step: int) -> None:
        """Sample the rollout of training step `step` with the weights of now."""
        self.parts.engine.load_weights(self.parts.policy.network, self.updates)
        experience = collect(self.config, self.algo, self.parts, step)
        self.tokens["sampled"] += experience.sampled_tokens
        self.pending.append(experience)

    def _learn(self, experience: Experience, diagnostics: Diagnostics) -> Metrics:
        """All updates of one rollout."""
        network = self.parts.policy.network.train()
        live = live_groups(experience, self.algo)
        norms: list[float] = []
        losses: list[float] = []
        for epoch in range(self.config.trainer.epochs):
            for rows in minibatch_order(self.config, live, self.step, epoch):
                loss, norm = self._update(experience, rows, diagnostics)
                losses.append(loss)
                norms.append(norm)
        network.eval()
        clip = self.config.trainer.grad_clip or math.inf
        count = len(norms)
        return {
            "train/updates": float(count),
            "train/loss": sum(losses) / count if count else math.nan,
            "train/grad_norm": sum(norms) / count if count else math.nan,
            "train/grad_norm_max": max(norms, default=math.nan),
            "train/grad_clipped_share": sum(n > clip for n in norms) / count if count else math.nan,
            "train/lr": self._lr(),
        }

    def _update(self, experience: Experience, rows: Tensor, diagnostics: Diagnostics) -> tuple[float, float]:
        """One optimizer update on the responses `rows` [N]; returns the loss and the gradient norm."""
        network, algo = self.parts.policy.network, self.algo
        whole = denominator(experience.rollout.response_mask[rows], algo.aggregation)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in self._microbatches(rows):
            batch = self._token_batch(experience, part)
            objective = token_objective(batch, algo, progress=self._progress(), step=self.step)
            loss = aggregate(objective.loss, batch.response_mask, algo.aggregation, whole)
            loss.backward()
            total += float(loss.detach())
            diagnostics.update(batch, objective)
        norm = float(
            torch.nn.utils.clip_grad_norm_(network.parameters(), self.config.trainer.grad_clip or math.inf)
        )
        if not math.isfinite(total) or not math.isfinite(norm):
            raise Diverged(
                f"diverged at step {self.step + 1}, update {self.updates + 1}: loss {total:g}, gradient norm {norm:g}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        self.optimizer.step()
        self.updates += 1
        self.tokens["trained"] += int(experience.rollout.response_mask[rows].sum())
        return total, norm

    def _lr(self) -> float:
        warmup = self.config.trainer.lr_warmup_updates
        return self.config.trainer.lr * (min(1.0, (self.updates + 1) / warmup) if warmup else 1.0)

    def _progress(self) -> float:
        return self.step / max(1, self.config.trainer.steps - 1)

    def _microbatches(self, rows: Tensor) -> Iterator[Tensor]:
        yield from rows.split(self.config.trainer.microbatch_sequences or len(rows))

    def _token_batch(self, experience: Experience, rows: Tensor) -> TokenBatch:
        """The policy's view of the responses `rows`, with everything the method asks for."""
        rollout = experience.rollout.rows(rows)
        needs = self.algo.requirements
        width = rollout.response_mask.shape[1]
        statistics = token_statistics(
            self.parts.policy.network,
            rollout.tokens,
            rollout.attention_mask,
            rollout.prompt_width,
            temperature=self.config.trainer.temperature,
            chosen=rollout.topk_ids if needs.needs_topk else None,
            full=needs.needs_full_distribution,
            entropy_gradient=needs.needs_entropy,
        )
        topk = full = None
        if needs.needs_topk and rollout.topk_ids is not None and rollout.topk_logp is not None:
            assert statistics.chosen_logp is not None
            contains = (rollout.topk_ids == rollout.responses.unsqueeze(-1)).any(-1)
            topk = TopK(rollout.topk_logp, statistics.chosen_logp, contains)
        if needs.needs_full_distribution and rollout.log_distribution is not None:
            assert statistics.log_distribution is not None
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

    # Looking at the policy, and keeping it.

    def _evaluation_due(self, timings: dict[str, float]) -> Metrics:
        if self.step % self.config.trainer.evaluate_every and not self._is_last():
            return {}
        started = time.perf_counter()
        metrics = self._evaluate_and_keep_best(self.step)
        timings["eval_s"] = time.perf_counter() - started
        return metrics

    def _evaluate_and_keep_best(self, step: int) -> Metrics:
        evaluation = self._evaluate()
        if evaluation.accuracy > self.best[0]:
            self.best = (evaluation.accuracy, step)
            folder = self.parts.folder
            save_checkpoint(folder.path / "checkpoints" / f"best_step_{step:06d}", self.parts.policy)
            folder.drop_checkpoints_before(step, "best_step_")
        return evaluation.metrics("heldout")

    def _evaluate(self) -> Evaluation:
        """Sampled accuracy of the training policy itself, at full precision, on the held-out set."""
        self.parts.evaluation_engine.load_weights(self.parts.policy.network, self.updates)
        problems = self.parts.task.heldout_problems()[: self.config.trainer.evaluation_problems]
        return evaluate(
            self.parts.evaluation_engine,
            self.parts.policy,
            self.parts.task,
            problems,
            max_new_tokens=self.config.task.response_limit,
            temperature=self.config.trainer.temperature,
        )

    def _write_samples(self, experience: Experience) -> None:
        count = self.config.trainer.samples_per_step
        if count:
            rows = experience.sample_rows(count, self.parts.policy.tokenizer)
            self.parts.folder.write_samples(self.step + 1, rows)

    def _log(self, step: int, metrics: Metrics, timings: Mapping[str, float]) -> None:
        folder = self.parts.folder
        row = {"step": step, **dict(sorted(metrics.items()))}
        if timings:
            folder.append("timings.jsonl", {"step": step, **timings})
        folder.append("metrics.jsonl", row)
        folder.update_info(steps_done=step, updates=self.updates, tokens=self.tokens)
        if self._on_step:
            self._on_step(step, row)

    def _checkpoint(self) -> None:
        state = {
            "step": self.step,
            "updates": self.updates,
            "tokens": self.tokens,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "pending": list(self.pending),
        }
        folder = self.parts.folder
        save_checkpoint(folder.path / "checkpoints" / f"step_{self.step:06d}", self.parts.policy, state)
        folder.drop_checkpoints_before(self.step)

    def _resume(self) -> bool:
        """Take up the last checkpoint. The policy's weights were loaded from it already. False if there is none."""
        checkpoints = self.parts.folder.checkpoints()
        if not checkpoints:
            self.parts.folder.rewind(-1)
            return False
        step, path = checkpoints[-1]
        state = load_state(path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.updates = state["step"], state["updates"]
        self.tokens, self.best = state["tokens"], state["best"]
        self.pending = deque(state["pending"])
        self.parts.folder.rewind(step)
        return True

"""The training loop: sample, grade, learn, evaluate, checkpoint."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from cppo_lab.config.schema import RunConfig
from cppo_lab.diagnostics.mask_overlap import AgreementCounter
from cppo_lab.diagnostics.position_profiles import PositionProfiler
from cppo_lab.diagnostics.token_traces import TokenRecorder
from cppo_lab.eval.held_out import Evaluation, evaluate
from cppo_lab.models.loading import Policy
from cppo_lab.rollouts.rollout import RolloutEngine
from cppo_lab.tasks.problem import Task
from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.training.checkpoint import load_state, save_checkpoint
from cppo_lab.training.experience import Experience
from cppo_lab.training.rollout_phase import Collector
from cppo_lab.training.update import Learner, Metrics, profile_rows

OnStep = Callable[[int, Mapping[str, Any]], None]


@dataclass
class Parts:
    """What a run is made of besides its configuration.

    `judge` samples from the policy at full precision; `reference` is the frozen policy of KL regularisers.
    """

    task: Task
    policy: Policy
    engine: RolloutEngine
    judge: RolloutEngine
    folder: RunFolder
    reference: nn.Module | None = None


class Trainer:
    """Owns one policy on one device, and the state that a checkpoint must hold."""

    def __init__(self, config: RunConfig, parts: Parts, on_step: OnStep | None = None) -> None:
        self.config, self.parts, self._on_step = config, parts, on_step
        self.learner = Learner(config, parts.policy)
        self.collector = Collector(
            config,
            self.learner.algo,
            parts.task,
            parts.policy,
            parts.engine,
            parts.reference,
            self.learner.critic,
        )
        self.step = 0
        self.sampled_tokens = 0
        self.best_accuracy = -math.inf
        # Rollouts sampled but not yet learnt from: one, and as many more as the staleness.
        self.pending: deque[Experience] = deque()

    def run(self) -> None:
        """Train from the last checkpoint, or from the start, to the last step."""
        if not self._resume():
            self._log(0, self._evaluate_and_keep_best(), {})
            self._checkpoint()
        while self.step < self.config.trainer.steps:
            metrics, timings = self._train_step()
            self._log(self.step, metrics, timings)
            if self.step % self.config.trainer.checkpoint_every == 0 or self._is_last():
                self._checkpoint()

    def _is_last(self) -> bool:
        return self.step == self.config.trainer.steps

    def _train_step(self) -> tuple[Metrics, dict[str, float]]:
        """One step: a rollout, its updates, and an evaluation where one is due."""
        clock = _Clock()
        ahead = min(self.config.trainer.staleness, self.config.trainer.steps - 1 - self.step)
        while len(self.pending) <= ahead:
            self._sample_ahead(self.step + len(self.pending))
        experience = self.pending.popleft()
        clock.lap("rollout_s")
        evaluates = self._evaluation_due(self.step + 1)
        profiler = PositionProfiler() if evaluates else None
        # Token by token a response is many numbers: as seldom as the profiles.
        recorder = TokenRecorder(range(self.config.trainer.samples_per_step)) if evaluates else None
        agreement = AgreementCounter(self.learner.algo) if evaluates else None
        age = float(self.learner.updates - experience.rollout.policy_version)
        metrics = experience.metrics | {"rollout/age_updates": age}
        metrics |= self.learner.learn(experience, self.step, profiler, recorder, agreement)
        clock.lap("train_s")
        self.step += 1
        if profiler is not None and agreement is not None:
            for row in profile_rows(profiler, self.step):
                self.parts.folder.append("profiles.jsonl", row)
            self.parts.folder.append("agreement.jsonl", {"step": self.step, **asdict(agreement.result())})
            metrics |= self._evaluate_and_keep_best()
            clock.lap("eval_s")
        self._write_samples(experience, recorder)
        tokens = float(experience.rollout.response_mask.sum())
        return metrics, clock.laps | {
            "tokens_per_s": tokens / (clock.laps["rollout_s"] + clock.laps["train_s"])
        }

    def _sample_ahead(self, step: int) -> None:
        """Sample the rollout that training step `step` will learn from, with the weights of now."""
        self.parts.engine.load_weights(self.parts.policy.network, self.learner.updates)
        experience = self.collector.collect(step)
        self.sampled_tokens += experience.sampled_tokens
        self.pending.append(experience)

    # Looking at the policy, and keeping it.

    def _evaluation_due(self, step: int) -> bool:
        return step % self.config.trainer.evaluate_every == 0 or step == self.config.trainer.steps

    def _evaluate_and_keep_best(self) -> Metrics:
        evaluation = self._evaluate()
        if evaluation.accuracy > self.best_accuracy:
            self.best_accuracy = evaluation.accuracy
            folder = self.parts.folder
            save_checkpoint(folder.path / "checkpoints" / f"best_step_{self.step:06d}", self.parts.policy)
            folder.drop_checkpoints_before(self.step, "best_step_")
        return evaluation.metrics("heldout")

    def _evaluate(self) -> Evaluation:
        """Sampled accuracy of the training policy itself on the held-out set."""
        self.parts.judge.load_weights(self.parts.policy.network, self.learner.updates)
        sampling, trained = self.config.task.heldout_sampling, self.config.trainer.temperature
        problems = self.parts.task.heldout_problems()[: self.config.trainer.evaluation_problems]
        evaluation = evaluate(
            self.parts.judge,
            self.parts.policy,
            problems,
            max_new_tokens=self.config.task.response_limit,
            temperature=trained if sampling.temperature is None else sampling.temperature,
            top_p=sampling.top_p,
            samples=sampling.samples,
        )
        self.parts.judge.rest()
        return evaluation

    def _write_samples(self, experience: Experience, recorder: TokenRecorder | None) -> None:
        count = self.config.trainer.samples_per_step
        if count:
            rows = experience.sample_rows(count, self.parts.policy.tokenizer, recorder)
            self.parts.folder.write_samples(self.step, rows)

    def _log(self, step: int, metrics: Metrics, timings: Mapping[str, float]) -> None:
        folder = self.parts.folder
        row = {"step": step, **dict(sorted(metrics.items()))}
        if timings:
            folder.append("timings.jsonl", {"step": step, **timings})
        folder.append("metrics.jsonl", row)
        tokens = {"sampled": self.sampled_tokens, "trained": self.learner.trained_tokens}
        folder.update_info(steps_done=step, updates=self.learner.updates, tokens=tokens)
        if self._on_step:
            self._on_step(step, row)

    def _checkpoint(self) -> None:
        state = {
            "step": self.step,
            "sampled_tokens": self.sampled_tokens,
            "best_accuracy": self.best_accuracy,
            "learner": self.learner.state_dict(),
            "pending": [experience.state_dict() for experience in self.pending],
        }
        folder = self.parts.folder
        save_checkpoint(folder.path / "checkpoints" / f"step_{self.step:06d}", self.parts.policy, state)
        folder.drop_checkpoints_before(self.step)

    def _resume(self) -> bool:
        """Take up the last checkpoint, whose weights the policy already has. False if there is none."""
        checkpoints = self.parts.folder.checkpoints()
        if not checkpoints:
            self.parts.folder.rewind(-1)
            return False
        step, path = checkpoints[-1]
        state = load_state(path)
        self.learner.load_state_dict(state["learner"])
        self.step, self.sampled_tokens = state["step"], state["sampled_tokens"]
        self.best_accuracy = state["best_accuracy"]
        self.pending = deque(map(Experience.from_state_dict, state["pending"]))
        self.parts.folder.rewind(step)
        return True


class _Clock:
    """Wall-clock times of the parts of a step, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Note the time since the last lap under `name`."""
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now

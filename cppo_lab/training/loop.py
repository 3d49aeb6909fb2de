"""The training loop: rollouts, updates, evaluations, checkpoints."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cppo_lab.config.schema import Trainer
from cppo_lab.diagnostics.mask_overlap import MaskOverlapCounter
from cppo_lab.diagnostics.masked_tokens import MaskedTokenCounter
from cppo_lab.diagnostics.nothing_learnt import EARLY_STEPS, nothing_to_learn
from cppo_lab.diagnostics.position_profiles import PositionProfiler
from cppo_lab.diagnostics.token_traces import TokenRecorder
from cppo_lab.eval.held_out import Evaluation, evaluate
from cppo_lab.manifests import Damaged
from cppo_lab.models.loading import Policy
from cppo_lab.rollouts.rollout import OnTokens, RolloutEngine
from cppo_lab.tasks.problem import Grade, Problem
from cppo_lab.tasks.task import HeldoutSampling
from cppo_lab.tracking.integrity import REMEDY, claim_problem, cut_back, log_claims, write_run_manifest
from cppo_lab.tracking.run_folder import MASKED_TOKENS, RunFolder
from cppo_lab.training.activity import Activity, OnActivity
from cppo_lab.training.checkpoint import save_checkpoint
from cppo_lab.training.experience import Experience
from cppo_lab.training.rollout_phase import RolloutPhase
from cppo_lab.training.state_file import read_state
from cppo_lab.training.step_record import Metrics
from cppo_lab.training.update import BeforeUpdate, Learner, profile_rows

GREEDY_ACCURACY, GREEDY_STDERR = "eval/heldout_greedy/accuracy", "eval/heldout_greedy/stderr"
OnStep = Callable[[int, Mapping[str, Any]], None]


@dataclass(frozen=True)
class HeldOut:
    """The held-out evaluation of a run: `engine` samples at full precision, whatever the rollouts are sampled with."""

    engine: RolloutEngine
    policy: Policy
    problems: Sequence[Problem]
    response_limit: int
    temperature: float
    sampling: HeldoutSampling
    grade: Grade
    on_tokens: OnTokens | None = None

    def evaluate(self, version: int) -> Evaluation:
        """Evaluate the policy's present weights, which are `version`."""
        return self._evaluate(version, self.sampling.top_p, self.sampling.samples, greedy=False)

    def evaluate_greedily(self, version: int) -> Evaluation:
        """Evaluate one response to each problem, of the likeliest tokens."""
        return self._evaluate(version, top_p=1.0, samples=1, greedy=True)

    def _evaluate(self, version: int, top_p: float, samples: int, greedy: bool) -> Evaluation:
        self.engine.load_weights(self.policy.network, version)
        evaluation = evaluate(
            self.engine,
            self.policy,
            self.problems,
            max_new_tokens=self.response_limit,
            temperature=self.temperature,
            top_p=top_p,
            samples=samples,
            grade=self.grade,
            on_tokens=self.on_tokens,
            greedy=greedy,
        )
        self.engine.rest()
        return evaluation


class TrainingLoop:
    """Rollouts, updates, evaluations and checkpoints of one run, with the state that a checkpoint must hold."""

    def __init__(
        self,
        settings: Trainer,
        learner: Learner,
        rollouts: RolloutPhase,
        held_out: HeldOut,
        folder: RunFolder,
        on_step: OnStep | None = None,
        on_activity: OnActivity | None = None,
    ) -> None:
        self.settings, self.learner, self.rollouts = settings, learner, rollouts
        self.held_out, self.folder = held_out, folder
        self._on_step, self._on_activity = on_step, on_activity
        self.policy = learner.policy
        self.step = 0
        self.sampled_tokens = 0
        self.best_accuracy = -math.inf
        # The hashes of the sample files, by name.
        self.samples: dict[str, str] = {}
        head = self.policy.network.get_output_embeddings().weight
        self.masked_tokens = MaskedTokenCounter(len(head), head.device)
        # Rollouts sampled but not yet trained on: one, and as many more as the staleness.
        self.pending: deque[Experience] = deque()

    def run(self) -> None:
        """Train from the last checkpoint, or from the start, to the last step."""
        if not self._resume():
            metrics = self.held_out.evaluate(self.learner.updates).metrics("heldout")
            self._log(0, metrics | self._greedy(), {})
            self._checkpoint()
        while self.step < self.settings.steps:
            metrics, timings = self._train_step()
            self._log(self.step, metrics, timings)
            if self.step % self.settings.checkpoint_every == 0 or self._is_last():
                self._checkpoint()
        # Also where the last step's checkpoint is all that an earlier process got done.
        self._write_masked_tokens()
        self.folder.drop_checkpoints_before(self.step)
        self.folder.drop_superseded_bests()
        write_run_manifest(self.folder, self.samples)

    def _is_last(self) -> bool:
        return self.step == self.settings.steps

    def _train_step(self) -> tuple[Metrics, dict[str, float]]:
        """One step: a rollout, its updates, and an evaluation where one is due."""
        clock = _Clock()
        ahead = min(self.settings.staleness, self.settings.steps - 1 - self.step)
        while len(self.pending) <= ahead:
            self._sample_ahead(self.step + len(self.pending))
        experience = self.pending.popleft()
        clock.lap("rollout_s")
        evaluates = self._evaluation_due(self.step + 1)
        profiler = PositionProfiler() if evaluates else None
        # Token traces are large: recorded as seldom as the profiles.
        recorder = TokenRecorder(range(self.settings.samples_per_step)) if evaluates else None
        overlap = MaskOverlapCounter(self.learner.algo) if evaluates else None
        age = float(self.learner.updates - experience.rollout.policy_version)
        metrics = experience.metrics | {"rollout/age_updates": age}
        observed = (profiler, recorder, overlap, self.masked_tokens, self._counting_updates(experience))
        metrics |= self.learner.learn(experience, self.step, *observed)
        self.masked_tokens.steps += 1
        clock.lap("train_s")
        self.step += 1
        if profiler is not None and overlap is not None:
            for row in profile_rows(profiler, self.step):
                self.folder.append("profiles.jsonl", row)
            self.folder.append("agreement.jsonl", {"step": self.step, **asdict(overlap.result())})
            metrics |= self._evaluate_and_keep_best()
            metrics |= self._greedy() if self._is_last() else {}
            clock.lap("eval_s")
        self._write_samples(experience, recorder)
        tokens = float(experience.rollout.response_mask.sum())
        return metrics, clock.laps | {
            "tokens_per_s": tokens / (clock.laps["rollout_s"] + clock.laps["train_s"]),
            "tokens_trained": float(self.learner.trained_tokens),
        }

    def _sample_ahead(self, step: int) -> None:
        """Sample the rollout that training step `step` trains on, with the present weights."""
        experience = self.rollouts.collect(step, self.learner.updates, lag=step - self.step)
        self.sampled_tokens += experience.sampled_tokens
        self.pending.append(experience)

    def _counting_updates(self, experience: Experience) -> BeforeUpdate | None:
        """Tells how many of the step's minibatches are done."""
        if self._on_activity is None:
            return None
        tell, settings = self._on_activity, self.settings
        minibatches = math.ceil(int(experience.live.sum()) / settings.prompts_per_minibatch)
        done = itertools.count()

        def before_update(_experience: Experience, _rows: Tensor) -> None:
            tell(Activity(self.step, "updates", next(done), settings.epochs * minibatches))

        return before_update

    def _evaluation_due(self, step: int) -> bool:
        return step % self.settings.evaluate_every == 0 or step == self.settings.steps

    def _evaluate_and_keep_best(self) -> Metrics:
        evaluation = self.held_out.evaluate(self.learner.updates)
        if evaluation.accuracy > self.best_accuracy:
            self.best_accuracy = evaluation.accuracy
            self._save(self.folder.path / "checkpoints" / f"best_step_{self.step:06d}")
            self.folder.drop_superseded_bests()
        return evaluation.metrics("heldout")

    def _greedy(self) -> Metrics:
        """Greedy accuracy where it is asked for: what samples gain and it does not is sharpening."""
        if not self.settings.evaluate_greedy:
            return {}
        evaluation = self.held_out.evaluate_greedily(self.learner.updates)
        return {GREEDY_ACCURACY: evaluation.accuracy, GREEDY_STDERR: evaluation.stderr}

    def _write_samples(self, experience: Experience, recorder: TokenRecorder | None) -> None:
        count = self.settings.samples_per_step
        if count:
            rows = experience.sample_rows(count, self.policy.tokenizer, recorder)
            self.samples |= self.folder.write_samples(self.step, rows)

    def _log(self, step: int, metrics: Metrics, timings: Mapping[str, float]) -> None:
        row = {"step": step, **dict(sorted(metrics.items()))}
        if timings:
            self.folder.append("timings.jsonl", {"step": step, **timings, "logged_at": time.time()})
        self.folder.append("metrics.jsonl", row)
        tokens = {"sampled": self.sampled_tokens, "trained": self.learner.trained_tokens}
        self.folder.update_info(steps_done=step, updates=self.learner.updates, tokens=tokens)
        if step == min(EARLY_STEPS, self.settings.steps):
            self._warn_early()
        if self._on_step:
            self._on_step(step, row)

    def _warn_early(self) -> None:
        said = nothing_to_learn(self.folder.rows("metrics.jsonl"))
        if said:
            self.folder.update_info(warnings=[*self.folder.info.get("warnings", []), *said])

    def _checkpoint(self) -> None:
        state = {
            "step": self.step,
            "sampled_tokens": self.sampled_tokens,
            "best_accuracy": self.best_accuracy,
            "learner": self.learner.state_dict(),
            "masked_tokens": self.masked_tokens.state_dict(),
            "pending": [experience.state_dict() for experience in self.pending],
            "logs": log_claims(self.folder),
            "samples": self.samples,
        }
        # What the checkpoint claims is on the disk before it.
        self.folder.flush_logs()
        if earlier := self.folder.checkpoints():
            # One stays, in case the new one gets damaged; the others go first, so that the disk holds two at most.
            self.folder.drop_checkpoints_before(earlier[-1][0])
        self._save(self.folder.path / "checkpoints" / f"step_{self.step:06d}", state)
        self.folder.drop_superseded_bests()
        self._write_masked_tokens()

    def _write_masked_tokens(self) -> None:
        if self.masked_tokens.steps:
            self.folder.write_object(MASKED_TOKENS, self.masked_tokens.content(self.policy.tokenizer))

    def _save(self, path: Path, state: dict[str, Any] | None = None) -> None:
        """Save the policy's present weights, with the trainer state needed to resume if it is given."""
        save_checkpoint(path, self.policy, state)

    def _resume(self) -> bool:
        """Restore the last checkpoint, whose weights the policy already has. False if there is none.

        Raises Damaged where the logs and samples are not those that the checkpoint claims.
        """
        checkpoints = self.folder.checkpoints()
        if not checkpoints:
            cut_back(self.folder, {}, {})
            self.folder.rewind(-1)
            return False
        step, path = checkpoints[-1]
        state = read_state(path)
        self.samples = dict(state["samples"])
        problem = claim_problem(self.folder, state["logs"], self.samples)
        if problem is not None:
            raise Damaged(f"{problem}, which checkpoint {path.name} claims; {REMEDY}.")
        cut_back(self.folder, state["logs"], self.samples)
        self.learner.load_state_dict(state["learner"])
        self.step, self.sampled_tokens = state["step"], state["sampled_tokens"]
        self.best_accuracy = state["best_accuracy"]
        self.masked_tokens.load_state_dict(state["masked_tokens"])
        self.pending = deque(map(Experience.from_state_dict, state["pending"]))
        self.folder.rewind(step)
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

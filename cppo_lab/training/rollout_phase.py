"""The rollout phase of a training step: sample, grade, and turn rewards into advantages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cppo_lab.config.schema import Seeds, Trainer
from cppo_lab.diagnostics.metrics import mismatch
from cppo_lab.models.loading import Policy
from cppo_lab.models.value_head import Critic
from cppo_lab.objectives.advantages import token_advantages, zero_variance
from cppo_lab.objectives.overlong import overlong_penalty, without_truncated
from cppo_lab.objectives.regularisers import kl_estimate
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.rng import Stream, stream_seed, torch_stream
from cppo_lab.rollouts.rollout import OnTokens, Rollout, RolloutEngine, SamplingSettings, joined
from cppo_lab.tasks.grading.verdict import Verdict, outcome_counts
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.task import Task
from cppo_lab.training.experience import Experience
from cppo_lab.training.recompute import recompute_logp, recompute_values


@dataclass(frozen=True)
class GradedRollout:
    """A rollout of N prompts x G responses: rewards [N, G] after shaping, and correct [N, G], bool."""

    rollout: Rollout
    problems: Sequence[Problem]
    verdicts: Sequence[Verdict]
    rewards: Tensor
    correct: Tensor

    def groups(self, kept: Tensor) -> GradedRollout:
        """The groups with the indices `kept` [n]."""
        size = self.rewards.shape[1]
        rows = (kept.unsqueeze(-1) * size + torch.arange(size, device=kept.device)).flatten()
        return GradedRollout(
            self.rollout.rows(rows),
            [self.problems[i] for i in kept.tolist()],
            [self.verdicts[i] for i in rows.tolist()],
            self.rewards[kept],
            self.correct[kept],
        )


@dataclass(frozen=True)
class RolloutPhase:
    """Samples and grades the rollout of one training step after the other.

    `algo` has its horizon filled in; `response_limit` is in tokens; `reference` and `critic` only where needed.
    """

    settings: Trainer
    seeds: Seeds
    response_limit: int
    top_p: float
    algo: AlgoSpec
    task: Task
    policy: Policy
    engine: RolloutEngine
    reference: nn.Module | None = None
    critic: Critic | None = None
    on_tokens: OnTokens | None = None

    def collect(self, step: int, version: int, lag: int = 0) -> Experience:
        """The experience of `step` (from 0), sampled with the policy's present weights, which are `version`.

        `lag` is the number of training steps still to be taken before `step`.
        """
        self.engine.load_weights(self.policy.network, version)
        graded, sampled_tokens, metrics = self._sample_live(step)
        self.engine.rest()
        rollout = graded.rollout
        old_logp = self._recomputed(self.policy.network, rollout)
        reference_logp = None if self.reference is None else self._recomputed(self.reference, rollout)
        values = None
        if self.critic is not None:
            values = recompute_values(self.critic, self.policy, rollout, settings=self.settings)
        regulariser = self.algo.regulariser
        kl = None
        if reference_logp is not None and regulariser.kl_where == "reward":
            kl = kl_estimate(regulariser.kl_kind, old_logp, reference_logp)
        loss_mask = without_truncated(rollout.response_mask, ~rollout.finished, self.algo.overlong)
        advantages, returns = token_advantages(
            graded.rewards, loss_mask, self.algo.advantage, values=values, kl=kl, regulariser=regulariser
        )
        return Experience(
            rollout=rollout,
            problems=graded.problems,
            verdicts=graded.verdicts,
            rewards=graded.rewards,
            live=self._live(graded),
            loss_mask=loss_mask,
            advantages=advantages,
            old_logp=old_logp,
            reference_logp=reference_logp,
            values=values,
            returns=returns,
            weight_order=self._weight_order(rollout, step),
            sampled_tokens=sampled_tokens,
            metrics=metrics | mismatch(old_logp, rollout.logp, rollout.response_mask),
            version_lag=lag,
        )

    def _sample_live(self, step: int) -> tuple[GradedRollout, int, dict[str, float]]:
        """The groups to keep, the number of sampled tokens, and metrics over everything that was sampled."""
        sampling = self.algo.dynamic_sampling
        if sampling.kind != "refill":
            graded = self._sample(step)
            return graded, int(graded.rollout.response_mask.sum()), rollout_metrics([graded])
        wanted = self.settings.prompts_per_step
        rounds: list[GradedRollout] = []
        kept: list[GradedRollout] = []
        while len(rounds) < sampling.max_rounds and sum(len(k.problems) for k in kept) < wanted:
            # The first round has the prompts that every method has at this step; later ones come from beyond the run.
            graded = self._sample(step + len(rounds) * self.settings.steps)
            rounds.append(graded)
            live = self._live(graded).nonzero().flatten()
            kept.append(graded.groups(live[: wanted - sum(len(k.problems) for k in kept)]))
        kept = [k for k in kept if k.problems]
        tokens = sum(int(r.rollout.response_mask.sum()) for r in rounds)
        metrics = rollout_metrics(rounds) | {"train/sampling_rounds": float(len(rounds))}
        # Without a live group the last round is used as it is: its advantages are all zero.
        return (_together(kept, self.policy.pad_token) if kept else rounds[-1]), tokens, metrics

    def _recomputed(self, network: nn.Module, rollout: Rollout) -> Tensor:
        return recompute_logp(
            network,
            self.policy,
            rollout,
            settings=self.settings,
        )

    def _live(self, graded: GradedRollout) -> Tensor:
        """The groups to train on, bool [N]: all, or those in which the method's metric varies."""
        sampling = self.algo.dynamic_sampling
        if sampling.kind == "none":
            return torch.ones_like(graded.rewards[:, 0], dtype=torch.bool)
        return ~zero_variance(graded.correct.float() if sampling.metric == "accuracy" else graded.rewards)

    def _sample(self, position: int) -> GradedRollout:
        """Sample and grade the prompts at `position` of the prompt stream."""
        settings, seeds = self.settings, self.seeds
        problems = self.task.training_problems(position, settings.prompts_per_step, seeds.prompts)
        prompts = [self.policy.problem_ids(p) for p in problems]
        limit = self.response_limit
        sampling = SamplingSettings(
            max_new_tokens=limit,
            temperature=settings.temperature,
            top_p=self.top_p,
            stop_tokens=self.policy.stop_tokens,
            topk=self.algo.requirements.needs_topk or 0,
            full=self.algo.requirements.needs_full_distribution,
            entropy=self.algo.requirements.needs_rollout_entropy,
            seed=stream_seed(seeds.sampling, Stream.SAMPLING, position),
            on_tokens=self.on_tokens,
        )
        repeated = [prompt for prompt in prompts for _ in range(settings.group_size)]
        rollout = self.engine.sample(repeated, sampling)
        asked = [problem for problem in problems for _ in range(settings.group_size)]
        verdicts = self.task.grade(rollout.texts(self.policy.tokenizer), asked)
        shape, device = (-1, settings.group_size), rollout.logp.device
        earned = torch.tensor([v.reward for v in verdicts], device=device)
        correct = torch.tensor([v.correct for v in verdicts], device=device)
        shaped = earned + overlong_penalty(rollout.lengths, limit, self.algo.overlong)
        return GradedRollout(rollout, problems, verdicts, shaped.view(shape), correct.view(shape))

    def _weight_order(self, rollout: Rollout, step: int) -> Tensor | None:
        if not self.algo.requirements.needs_weight_order:
            return None
        generator = torch_stream(self.seeds.shuffled_weights, Stream.SHUFFLED_WEIGHTS, step)
        rows, width = rollout.response_mask.shape
        # Drawn for the longest possible response: a row's keys depend on no other row's length.
        keys = torch.rand((rows, self.response_limit), generator=generator)
        return keys[:, :width].to(rollout.logp.device)


def _together(parts: Sequence[GradedRollout], pad: int) -> GradedRollout:
    return GradedRollout(
        joined([part.rollout for part in parts], pad),
        [problem for part in parts for problem in part.problems],
        [verdict for part in parts for verdict in part.verdicts],
        torch.cat([part.rewards for part in parts]),
        torch.cat([part.correct for part in parts]),
    )


def rollout_metrics(rounds: Sequence[GradedRollout]) -> dict[str, float]:
    """Rewards, lengths and groups of everything that was sampled for a step."""
    rewards = torch.cat([r.rewards.flatten() for r in rounds])
    correct = torch.cat([r.correct for r in rounds])
    lengths = torch.cat([r.rollout.lengths for r in rounds]).float()
    finished = torch.cat([r.rollout.finished for r in rounds])
    parsed = [verdict.parsed is not None for r in rounds for verdict in r.verdicts]
    right = correct.flatten()
    same = torch.cat([zero_variance(r.rewards) for r in rounds])
    return {
        "train/accuracy": float(right.float().mean()),
        "train/reward_mean": float(rewards.mean()),
        "train/reward_std": float(rewards.std()),
        "train/zero_variance_groups": float(same.float().mean()),
        "train/all_wrong_groups": float((~correct.any(-1)).float().mean()),
        "train/all_right_groups": float(correct.all(-1).float().mean()),
        "train/unparsed_share": 1 - sum(parsed) / len(parsed),
        **outcome_counts(verdict for r in rounds for verdict in r.verdicts),
        "rollout/length_mean": float(lengths.mean()),
        "rollout/length_max": float(lengths.max()),
        "rollout/length_min": float(lengths.min()),
        "rollout/length_correct_mean": float(lengths[right].mean()) if right.any() else math.nan,
        "rollout/length_wrong_mean": float(lengths[~right].mean()) if not right.all() else math.nan,
        "rollout/truncated_share": float((~finished).float().mean()),
    }

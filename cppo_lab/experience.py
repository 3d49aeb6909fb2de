"""Experience: a graded rollout with its advantages, ready to learn from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cppo_lab.config import RunConfig
from cppo_lab.objectives.advantages import compute_advantages
from cppo_lab.objectives.diagnostics import mismatch
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.policies.logprobs import token_statistics
from cppo_lab.rollouts.rollout import Rollout, SamplingSettings
from cppo_lab.streams import Stream, numpy_stream, stream_seed, torch_stream
from cppo_lab.tasks.grading import Verdict
from cppo_lab.tasks.problem import Problem

if TYPE_CHECKING:
    from cppo_lab.trainer import Parts

# Responses whose log-probabilities are recomputed at once when the trainer first looks at a rollout.
_RECOMPUTE_ROWS = 256


@dataclass(frozen=True)
class Experience:
    """A rollout of N prompts x G responses (B = N G rows, a group's rows are neighbours) and what was made of it.

    `rewards` [N, G]; `advantages` [B]; `old_logp` [B, T] log-probabilities of the sampled tokens under the weights
    that sampled, as the trainer computes them; `weight_order` [B, T] sort keys of shuffled position weights.
    """

    rollout: Rollout
    problems: Sequence[Problem]
    verdicts: Sequence[Verdict]
    rewards: Tensor
    advantages: Tensor
    old_logp: Tensor
    weight_order: Tensor | None
    sampled_tokens: int
    metrics: dict[str, float]

    def sample_rows(self, count: int, tokenizer: Any) -> list[dict[str, Any]]:
        """The first `count` responses as readable rows."""
        picked = self.rollout.rows(torch.arange(min(count, len(self.verdicts))))
        group = self.rewards.shape[1]
        return [
            {
                "prompt": self.problems[row // group].prompt,
                "completion": text,
                "answer": self.problems[row // group].answer,
                "parsed": self.verdicts[row].parsed,
                "reward": float(self.rewards.flatten()[row]),
                "advantage": float(self.advantages[row]),
                "length": int(picked.lengths[row]),
                "finish": "stop" if bool(picked.finished[row]) else "length",
            }
            for row, text in enumerate(picked.texts(tokenizer))
        ]


def collect(config: RunConfig, algo: AlgoSpec, parts: Parts, step: int) -> Experience:
    """Sample and grade the rollout of `step` (from 0) with the engine's present weights."""
    trainer = config.trainer
    problems = parts.task.training_problems(step, trainer.prompts_per_step, config.seeds.prompts)
    prompts = [parts.policy.prompt_ids(p.prompt) for p in problems for _ in range(trainer.group_size)]
    settings = SamplingSettings(
        max_new_tokens=config.task.response_limit,
        temperature=trainer.temperature,
        topk=algo.requirements.needs_topk or 0,
        full=algo.requirements.needs_full_distribution,
        seed=stream_seed(config.seeds.sampling, Stream.SAMPLING, step),
    )
    rollout = parts.engine.sample(prompts, settings)
    texts = rollout.texts(parts.policy.tokenizer)
    verdicts = [parts.task.grade(text, problems[row // trainer.group_size]) for row, text in enumerate(texts)]
    rewards = torch.tensor([v.reward for v in verdicts]).view(-1, trainer.group_size).to(rollout.logp.device)
    old_logp = recomputed_logp(parts.policy.network, rollout, trainer.temperature)
    return Experience(
        rollout=rollout,
        problems=problems,
        verdicts=verdicts,
        rewards=rewards,
        advantages=compute_advantages(rewards, algo.advantage),
        old_logp=old_logp,
        weight_order=_weight_order(config, algo, rollout, step),
        sampled_tokens=int(rollout.response_mask.sum()),
        metrics=_rollout_metrics(rollout, rewards, verdicts)
        | mismatch(old_logp, rollout.logp, rollout.response_mask),
    )


@torch.no_grad()
def recomputed_logp(network: torch.nn.Module, rollout: Rollout, temperature: float) -> Tensor:
    """log pi_old [B, T]: the trainer's own log-probabilities of a rollout, 0 at padding."""
    logp = torch.zeros_like(rollout.logp)
    for rows in torch.arange(len(logp)).split(_RECOMPUTE_ROWS):
        part = rollout.rows(rows)
        found = token_statistics(
            network, part.tokens, part.attention_mask, part.prompt_width, temperature=temperature
        ).logp
        logp[rows, : found.shape[1]] = torch.where(part.response_mask, found, 0.0)
    return logp


def _weight_order(config: RunConfig, algo: AlgoSpec, rollout: Rollout, step: int) -> Tensor | None:
    if not algo.requirements.needs_weight_order:
        return None
    generator = torch_stream(config.seeds.shuffled_weights, Stream.SHUFFLED_WEIGHTS, step)
    return torch.rand(rollout.response_mask.shape, generator=generator).to(rollout.logp.device)


def _rollout_metrics(rollout: Rollout, rewards: Tensor, verdicts: Sequence[Verdict]) -> dict[str, float]:
    lengths = rollout.lengths.float()
    correct = rewards.flatten() > 0
    none, every = (rewards.amax(-1) <= 0), (rewards.amin(-1) > 0)
    return {
        "train/reward_mean": float(rewards.mean()),
        "train/reward_std": float(rewards.std()),
        "train/zero_variance_groups": float((none | every).float().mean()),
        "train/all_wrong_groups": float(none.float().mean()),
        "train/all_right_groups": float(every.float().mean()),
        "train/unparsed_share": sum(v.parsed is None for v in verdicts) / len(verdicts),
        "rollout/length_mean": float(lengths.mean()),
        "rollout/length_max": float(lengths.max()),
        "rollout/length_correct_mean": float(lengths[correct].mean()) if correct.any() else math.nan,
        "rollout/truncated_share": float((~rollout.finished).float().mean()),
    }


def live_groups(experience: Experience, algo: AlgoSpec) -> list[int]:
    """The groups to learn from: all, or only those whose responses did not all earn the same reward."""
    rewards = experience.rewards
    if algo.dynamic_sampling.kind == "none":
        return list(range(len(rewards)))
    return (rewards.amax(-1) > rewards.amin(-1)).nonzero().flatten().tolist()


def minibatch_order(config: RunConfig, groups: Sequence[int], step: int, epoch: int) -> Iterator[Tensor]:
    """The rows of each minibatch [n]: whole groups, in an order drawn anew for every epoch."""
    rng = numpy_stream(config.seeds.minibatches, Stream.MINIBATCHES, step, epoch)
    order = [groups[i] for i in rng.permutation(len(groups))]
    size, group = config.trainer.prompts_per_minibatch, config.trainer.group_size
    for start in range(0, len(order), size):
        yield torch.tensor([g * group + i for g in order[start : start + size] for i in range(group)])

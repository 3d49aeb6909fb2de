"""Experience: a graded rollout with its advantages, ready for updates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from cppo_lab.config.schema import Trainer
from cppo_lab.diagnostics.token_traces import TokenRecorder, token_texts
from cppo_lab.rng import Stream, numpy_stream
from cppo_lab.rollouts.rollout import Rollout
from cppo_lab.tasks.grading.answers import AnswerFormat
from cppo_lab.tasks.grading.verdict import Outcome, Verdict
from cppo_lab.tasks.problem import Problem


@dataclass(frozen=True)
class Experience:
    """A graded rollout of N prompts x G responses (B = N G rows; the rows of a group are adjacent).

    `rewards` [N, G] after shaping; `live` [N] bool, the groups to train on; `loss_mask` [B, T] bool, the response
    mask less filtered rows; `advantages` [B, T]; `old_logp` [B, T] log-probabilities of the sampled tokens under the
    weights that sampled, as the trainer computes them; `reference_logp` [B, T] those of the frozen reference;
    `values` and `returns` [B, T] the critic's estimates and targets; `weight_order` [B, T] sort keys of shuffled
    position weights. None where not needed. `version_lag` is the number of training steps between the weights that
    sampled and those that the first update starts from.
    """

    rollout: Rollout
    problems: Sequence[Problem]
    verdicts: Sequence[Verdict]
    rewards: Tensor
    live: Tensor
    loss_mask: Tensor
    advantages: Tensor
    old_logp: Tensor
    reference_logp: Tensor | None
    values: Tensor | None
    returns: Tensor | None
    weight_order: Tensor | None
    sampled_tokens: int
    metrics: dict[str, float]
    version_lag: int = 0

    @property
    def prompts(self) -> Tensor:
        """The number of the prompt that each row answers [B]."""
        groups, size = self.rewards.shape
        return torch.arange(groups, device=self.rewards.device).repeat_interleave(size)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of it: tensors and plain data."""
        return shallow(self) | {
            "rollout": shallow(self.rollout),
            "problems": [_problem_state(problem) for problem in self.problems],
            "verdicts": [(verdict.outcome.value, verdict.parsed, verdict.score) for verdict in self.verdicts],
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Experience:
        """The experience that `state_dict` was taken of."""
        parts = {
            "rollout": Rollout(**state["rollout"]),
            "problems": [
                Problem(**{**problem, "format": AnswerFormat(**problem["format"])})
                for problem in state["problems"]
            ],
            "verdicts": [Verdict(Outcome(outcome), *rest) for outcome, *rest in state["verdicts"]],
        }
        return cls(**{**state, **parts})

    def sample_rows(
        self, count: int, tokenizer: Any, recorder: TokenRecorder | None = None
    ) -> list[dict[str, Any]]:
        """The first `count` responses as rows to read, with their token traces where there are any."""
        picked = self.rollout.rows(torch.arange(min(count, len(self.verdicts))))
        group = self.rewards.shape[1]
        lengths = picked.lengths.clamp(min=1)
        width = picked.response_mask.shape[1]
        means = self.advantages[: len(lengths), :width].sum(-1) / lengths
        return [
            {
                "prompt": self.problems[row // group].prompt,
                "completion": text,
                "answer": self.problems[row // group].answer,
                "parsed": self.verdicts[row].parsed,
                "verdict": self.verdicts[row].outcome.value,
                "reward": float(self.rewards.flatten()[row]),
                "advantage": float(means[row]),
                "length": int(picked.lengths[row]),
                "finish": "stop" if bool(picked.finished[row]) else "length",
                "tokens": self._token_rows(row, tokenizer, recorder),
            }
            for row, text in enumerate(picked.texts(tokenizer))
        ]

    def _token_rows(self, row: int, tokenizer: Any, recorder: TokenRecorder | None) -> dict[str, Any] | None:
        record = None if recorder is None else recorder.of(row)
        if record is None:
            return None
        tokens = self.rollout.responses[row][self.loss_mask[row]].tolist()
        return {"text": token_texts(tokenizer, tokens), **record}


def shallow(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass as they are."""
    return {field.name: getattr(instance, field.name) for field in fields(instance)}


def _problem_state(problem: Problem) -> dict[str, Any]:
    # What a task's own kind of problem adds is needed for grading alone, which is done.
    plain = {each.name: getattr(problem, each.name) for each in fields(Problem) if each.name != "row"}
    return plain | {"format": shallow(problem.format)}


def minibatch_order(
    settings: Trainer, seed: int, groups: Sequence[int], step: int, epoch: int
) -> Iterator[Tensor]:
    """The rows of each minibatch [n]: whole groups, in an order drawn anew for every epoch."""
    rng = numpy_stream(seed, Stream.MINIBATCHES, step, epoch)
    order = [groups[i] for i in rng.permutation(len(groups))]
    size, group = settings.prompts_per_minibatch, settings.group_size
    for start in range(0, len(order), size):
        yield torch.tensor([g * group + i for g in order[start : start + size] for i in range(group)])

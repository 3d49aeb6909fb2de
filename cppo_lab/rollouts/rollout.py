"""A rollout: sampled responses with all that was true when they were sampled. Never changed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from cppo_lab.rollouts.stops import StopStrings

OnTokens = Callable[[int, int], None]
"""Called now and then with the number of tokens sampled so far, and the most that there can be in the end."""


@dataclass(frozen=True)
class SamplingSettings:
    """How an engine samples. Training uses the untruncated softmax, so that ratios are those of the policy.

    `topk` requests the K largest log-probabilities at each position (0: none), `full` the whole distributions,
    `entropy` their entropies.
    `greedy` takes the most likely token. `seed` fixes all draws; `row_seeds`, one per prompt, fix each row's draws
    separately instead. `top_p` below 1 is nucleus sampling; `stop_tokens` end a response as the end token does. For
    evaluation only: `repetition_penalty` is that of transformers, and after a string of `stops` an engine may stop (a
    response can go on for some tokens after it). An engine that knows how far it is calls `on_tokens`. Where several
    engines share a rollout, `rows_before` prompts come before this one's, and `seed` fixes the draws of the whole.
    """

    max_new_tokens: int
    temperature: float = 1.0
    greedy: bool = False
    topk: int = 0
    full: bool = False
    entropy: bool = False
    seed: int = 0
    row_seeds: tuple[int, ...] | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop_tokens: tuple[int, ...] = ()
    stops: StopStrings | None = None
    on_tokens: OnTokens | None = None
    rows_before: int = 0


@dataclass(frozen=True)
class Rollout:
    """Sampled responses with the rollout policy's own log-probabilities.

    B responses of at most T tokens; the responses to one prompt are adjacent. `tokens` [B, P + T] int64 are
    left-padded prompts of width P = `prompt_width` followed by right-padded responses; `attention_mask` [B, P + T]
    and `response_mask` [B, T] are bool, the end-of-sequence token included; `logp` [B, T] float32 is log mu(a_t) of
    the sampling distribution, 0 at padding; `finished` [B] bool is False where the length limit cut the response.
    `topk_ids` and `topk_logp` [B, T, K], `log_distribution` [B, T, V], and `entropy` [B, T] of the sampling
    distribution in nats, 0 at padding, are there if the settings request them.
    """

    tokens: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    logp: Tensor
    finished: Tensor
    prompt_width: int
    policy_version: int
    topk_ids: Tensor | None = None
    topk_logp: Tensor | None = None
    log_distribution: Tensor | None = None
    entropy: Tensor | None = None

    @property
    def responses(self) -> Tensor:
        """The sampled tokens [B, T], right-padded."""
        return self.tokens[:, self.prompt_width :]

    @property
    def lengths(self) -> Tensor:
        """Response lengths in tokens [B], the end-of-sequence token included."""
        return self.response_mask.sum(-1)

    def rows(self, index: Tensor) -> Rollout:
        """The rows of `index` [N], without trailing columns that are padding in all of them."""
        longest = max(1, int(self.lengths[index].max())) if len(index) else 1
        picked: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                wide = field.name in ("tokens", "attention_mask")
                value = value[index]
                if value.dim() > 1:
                    value = value[:, : self.prompt_width + longest if wide else longest]
                picked[field.name] = value
        return replace(self, **picked)

    def texts(self, tokenizer: object) -> list[str]:
        """The decoded responses without special tokens."""
        ids = [row[mask].tolist() for row, mask in zip(self.responses, self.response_mask, strict=True)]
        return tokenizer.batch_decode(ids, skip_special_tokens=True)  # type: ignore[attr-defined]


def joined(rollouts: Sequence[Rollout], pad: int) -> Rollout:
    """Concatenate rollouts of the same weights, with prompts left-padded and responses right-padded."""
    prompt = max(r.prompt_width for r in rollouts)
    length = max(r.response_mask.shape[1] for r in rollouts)
    columns: dict[str, Any] = {}
    for field in fields(Rollout):
        values = [getattr(r, field.name) for r in rollouts]
        if isinstance(values[0], Tensor):
            fill = pad if field.name == "tokens" else 0
            wide = field.name in ("tokens", "attention_mask")
            grown = [
                _grown(v, prompt - r.prompt_width if wide else 0, length - r.response_mask.shape[1], fill)
                for v, r in zip(values, rollouts, strict=True)
            ]
            columns[field.name] = torch.cat(grown)
    return replace(rollouts[0], prompt_width=prompt, **columns)


def _grown(values: Tensor, left: int, right: int, fill: int) -> Tensor:
    """`values` [B, T, ...] with columns of `fill` before and after; [B] is unchanged."""
    if values.dim() == 1:
        return values
    sides = [(values.shape[0], n, *values.shape[2:]) for n in (left, right)]
    before, after = (values.new_full(side, fill) for side in sides)
    return torch.cat([before, values, after], dim=1)


class Sampler(Protocol):
    """Samples responses from a model."""

    def sample(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> Rollout:
        """One response to each of `prompts` (token ids; repeat a prompt for a group)."""
        ...

    def close(self) -> None:
        """Release all that is held; nothing is sampled afterwards."""
        ...


class RolloutEngine(Sampler, Protocol):
    """A sampler that follows the policy while it is trained."""

    def load_weights(self, policy: torch.nn.Module, version: int) -> None:
        """Copy the policy's weights; rollouts sampled from now on carry `version`."""
        ...

    def rest(self) -> None:
        """Release memory that the trainer can use: nothing is sampled until the next `load_weights`."""
        ...

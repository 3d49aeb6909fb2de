"""What the sampler drew its tokens from, recorded while TRL generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList


@dataclass(frozen=True)
class Sampled:
    """Log-probabilities at every generated position, the padding behind a response included; float32.

    `logp` [B, T] of the sampled tokens; `topk_ids` and `topk_logp` [B, T, K] of the likeliest ones and `entropy`
    [B, T], in nats, None unless asked for.
    """

    logp: Tensor
    topk_ids: Tensor | None
    topk_logp: Tensor | None
    entropy: Tensor | None


class Recorder(LogitsProcessor):
    """Keeps the log-probabilities that each step of `generate` samples from, and leaves the logits as they are.

    transformers divides by the temperature after the processors that it is given, so this one does it for itself. Of
    whole distributions only the last one is kept, until the token drawn from it is known.
    """

    def __init__(self, temperature: float, k: int | None = None, entropy: bool = False) -> None:
        self.temperature, self.k, self.wants_entropy = temperature, k, entropy
        self._last: Tensor | None = None
        self._logp: list[Tensor] = []
        self._topk: list[tuple[Tensor, Tensor]] = []
        self._entropy: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Record `scores` [B, V], the logits after `input_ids` [B, P + t]."""
        if self._last is not None:
            self._take(input_ids[:, -1])
        self._last = (scores.float() / self.temperature).log_softmax(-1)
        if self.k:
            top = self._last.topk(min(self.k, self._last.shape[-1]), dim=-1)
            self._topk.append((top.indices, top.values))
        if self.wants_entropy:
            self._entropy.append(torch.special.entr(self._last.exp()).sum(-1))
        return scores

    def sampled(self, sequences: Tensor) -> Sampled:
        """Everything recorded, given the tokens [B, P + T] that `generate` returned."""
        self._take(sequences[:, -1])
        return Sampled(
            torch.stack(self._logp, 1),
            torch.stack([ids for ids, _ in self._topk], 1) if self._topk else None,
            torch.stack([logp for _, logp in self._topk], 1) if self._topk else None,
            torch.stack(self._entropy, 1) if self._entropy else None,
        )

    def _take(self, tokens: Tensor) -> None:
        assert self._last is not None, "nothing was generated"
        self._logp.append(self._last.gather(-1, tokens.unsqueeze(-1)).squeeze(-1))
        self._last = None


@dataclass
class Recording:
    """What a `recorded` block has generated."""

    sampled: Sampled | None = None


@contextmanager
def recorded(model: Any, make: Callable[[], Recorder]) -> Iterator[Recording]:
    """Within it, `model.generate` records what it samples; the tokens it returns are those of the plain call."""
    recording, generate = Recording(), model.generate
    own = vars(model).get("generate")

    def recording_generate(*args: Any, **kwargs: Any) -> Tensor:
        recorder = make()
        sequences: Tensor = generate(*args, logits_processor=LogitsProcessorList([recorder]), **kwargs)
        recording.sampled = recorder.sampled(sequences)
        return sequences

    model.generate = recording_generate
    try:
        yield recording
    finally:
        del model.generate
        if own is not None:
            model.generate = own


@dataclass
class VLLMTopK:
    """TRL's vLLM generation, asked for the K likeliest tokens as well; what TRL gets is as without them.

    TRL takes the first log-probability of a position for the sampled token's, which only holds where no others are.
    """

    generation: Any
    k: int
    ids: list[list[list[int]]] = field(default_factory=list)
    logp: list[list[list[float]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generation.logprobs = self.k

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generation, name)

    def generate(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The same as TRL's: prompts, completions, log-probabilities and tokens [B][T][1]."""
        prompts, completions, logp, ids = self.generation.generate(*args, **kwargs)
        sampled = []
        self.ids, self.logp = [], []
        for tokens, rows, of_tokens in zip(completions, logp, ids, strict=True):
            at = [of.index(token) for token, of in zip(tokens, of_tokens, strict=True)]
            sampled.append([[row[place]] for row, place in zip(rows, at, strict=True)])
            # vLLM adds the sampled token behind the K likeliest where it is none of them.
            self.ids.append([of[: self.k] for of in of_tokens])
            self.logp.append([[_number(value) for value in row[: self.k]] for row in rows])
        return prompts, completions, sampled, [[[token] for token in tokens] for tokens in completions]

    def topk(self, width: int, pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens and log-probabilities [B, T, K] for responses padded to `width`."""
        ids = torch.full((len(self.ids), width, self.k), pad)
        logp = torch.full(ids.shape, float("-inf"))
        for row, (its_ids, its_logp) in enumerate(zip(self.ids, self.logp, strict=True)):
            for column, (tokens, values) in enumerate(zip(its_ids, its_logp, strict=True)):
                ids[row, column, : len(tokens)] = torch.tensor(tokens)
                logp[row, column, : len(values)] = torch.tensor(values)
        return ids.to(device), logp.to(device)


def _number(value: float | None) -> float:
    # TRL hands on a NaN of vLLM as None; the token is then no candidate.
    return float("-inf") if value is None else value


def rows_of(values: Tensor, lengths: Sequence[int]) -> list[list[float]]:
    """The first `lengths` [B] entries of each row of `values` [B, T]."""
    return [row[:length].tolist() for row, length in zip(values.cpu(), lengths, strict=True)]

"""From sampling settings to vLLM's requests, and from vLLM's outputs to a rollout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cppo_lab.rollouts.rollout import Rollout, SamplingSettings

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.outputs import CompletionOutput

_SEEDS = 1 << 63


@dataclass(frozen=True)
class Requests:
    """Prompts with their sampling parameters; adjacent equal prompts are one request."""

    prompts: list[Sequence[int]]
    parameters: list[SamplingParams]


def requests_for(
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    ends: Sequence[int],
    vocabulary: int,
) -> Requests:
    """One response to each of `prompts`, ended by a token of `ends`, a stop string or the length limit.

    Row r of the rollout has a seed of its own: that of `row_seeds`, or `seed` + r (counting those
    before this rollout's). vLLM numbers the seeds of a
    request's responses upwards from the request's seed, so that no two rows share their draws.
    """
    from vllm import SamplingParams

    found = Requests([], [])
    stops = [] if settings.stops is None else list(settings.stops.strings)
    for row, size in _groups(prompts, alone=settings.greedy or settings.row_seeds is not None):
        own = settings.seed + settings.rows_before + row
        seed = own if settings.row_seeds is None else settings.row_seeds[row]
        found.prompts.append(prompts[row])
        found.parameters.append(
            SamplingParams(
                n=size,
                temperature=0.0 if settings.greedy else settings.temperature,
                top_p=settings.top_p,
                repetition_penalty=settings.repetition_penalty,
                max_tokens=settings.max_new_tokens,
                seed=seed % (_SEEDS - size),
                stop_token_ids=list(ends),
                # Only the end tokens that the lab names end a response.
                ignore_eos=True,
                logprobs=vocabulary if settings.full else min(settings.topk, vocabulary),
                flat_logprobs=True,
                # vLLM stops after a stop string and keeps its tokens; the lab cuts them.
                stop=stops,
                detokenize=bool(stops),
                skip_special_tokens=False,
            )
        )
    return found


def _groups(prompts: Sequence[Sequence[int]], alone: bool) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of each run of equal prompts; with `alone`, of each prompt."""
    start = 0
    for row in range(1, len(prompts) + 1):
        if row == len(prompts) or alone or list(prompts[row]) != list(prompts[start]):
            yield start, row - start
            start = row


def rollout_of(
    outputs: Sequence[RequestOutput],
    settings: SamplingSettings,
    ends: Sequence[int],
    pad: int,
    version: int,
    device: torch.device,
) -> Rollout:
    """vLLM's outputs, in the order of the requests, as a rollout."""
    rows = [(output.prompt_token_ids or [], each) for output in outputs for each in output.outputs]
    prompt_width = max(len(prompt) for prompt, _ in rows)
    longest = max(len(each.token_ids) for _, each in rows)
    lengths = torch.tensor([len(each.token_ids) for _, each in rows])
    prompts = _padded([torch.tensor(list(prompt)) for prompt, _ in rows], prompt_width, pad, left=True)
    prompt_lengths = torch.tensor([len(prompt) for prompt, _ in rows])
    responses = _padded([torch.tensor(list(each.token_ids)) for _, each in rows], longest, pad)
    mask = torch.arange(longest) < lengths.unsqueeze(-1)
    prompt_mask = torch.arange(prompt_width) >= prompt_width - prompt_lengths.unsqueeze(-1)
    ids, logp = (_padded(list(column), longest, 0) for column in zip(*map(_logprobs, rows), strict=True))
    topk = min(settings.topk, logp.shape[-1] - 1)
    last = responses.gather(1, (lengths - 1).unsqueeze(-1)).squeeze(-1)
    tensors: dict[str, Tensor | None] = {
        "tokens": torch.cat([prompts, responses], dim=-1),
        "attention_mask": torch.cat([prompt_mask, mask], dim=-1),
        "response_mask": mask,
        "logp": logp[..., 0].contiguous(),
        "finished": torch.isin(last, torch.tensor(list(ends))),
        "topk_ids": ids[..., 1 : topk + 1].contiguous() if settings.topk else None,
        "topk_logp": logp[..., 1 : topk + 1].contiguous() if settings.topk else None,
        # vLLM sorts by probability; a distribution is in the order of the vocabulary.
        "log_distribution": torch.zeros_like(logp[..., 1:]).scatter(-1, ids[..., 1:], logp[..., 1:])
        if settings.full
        else None,
    }
    placed: dict[str, Any] = {k: v if v is None else v.to(device) for k, v in tensors.items()}
    return Rollout(prompt_width=prompt_width, policy_version=version, **placed)


def _logprobs(row: tuple[Sequence[int], CompletionOutput]) -> tuple[Tensor, Tensor]:
    """Token ids and log-probabilities [T, 1 + K]: the sampled token, then the K most likely in order."""
    found: Any = row[1].logprobs
    positions = len(row[1].token_ids)
    ids = torch.tensor(found.token_ids).view(positions, -1)
    return ids, torch.tensor(found.logprobs, dtype=torch.float32).view(positions, -1)


def _padded(rows: Sequence[Tensor], width: int, fill: int, left: bool = False) -> Tensor:
    """Rows [L, ...] of different lengths as one tensor [B, width, ...]."""
    whole = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), fill)
    for place, row in zip(whole, rows, strict=True):
        place[slice(width - len(row), None) if left else slice(0, len(row))] = row
    return whole

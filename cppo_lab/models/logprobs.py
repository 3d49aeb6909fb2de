"""Log-probabilities of sampled tokens without a [B, T, V] tensor in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cppo_lab.models.decoder.trunk import response_states
from cppo_lab.models.implementation import is_by_lab

# Positions whose logits may exist at once: 4 M entries are 16 MiB in float32.
_LOGIT_ENTRIES = 1 << 22


@dataclass(frozen=True)
class TokenStatistics:
    """Statistics of the sampled tokens from one forward pass of the policy, float32.

    `logp` [B, T] has a gradient if the pass does; `entropy` [B, T], in nats, only on request; `chosen_logp` [B, T, K]
    are the detached log-probabilities of the tokens in `chosen` (None without it); `log_distribution` [B, T, V],
    detached, is there on request, and so is `collision` [B, T], the sum of squared probabilities.
    """

    logp: Tensor
    entropy: Tensor
    chosen_logp: Tensor | None = None
    log_distribution: Tensor | None = None
    collision: Tensor | None = None


def _statistics(
    hidden: Tensor,
    head: nn.Module,
    tokens: Tensor,
    chosen: Tensor | None,
    temperature: float,
    entropy_gradient: bool,
    collision: bool,
) -> tuple[Tensor, ...]:
    log_distribution = torch.log_softmax(head(hidden).float() / temperature, dim=-1)
    logp = log_distribution.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    source = log_distribution if entropy_gradient else log_distribution.detach()
    entropy = -(source.exp() * source).sum(-1)
    found = [logp, entropy]
    if chosen is not None:
        found.append(log_distribution.detach().gather(-1, chosen))
    if collision:
        found.append((2 * log_distribution.detach()).exp().sum(-1))
    return tuple(found)


def head_statistics(
    hidden: Tensor,
    head: nn.Module,
    tokens: Tensor,
    chosen: Tensor | None,
    temperature: float,
    entropy_gradient: bool = False,
    collision: bool = False,
) -> TokenStatistics:
    """Statistics of `tokens` [N] under the output head's distribution at `hidden` [N, d], in chunks.

    With more than one chunk, the backward pass recomputes the logits instead of keeping them.
    """
    vocabulary = cast(Tensor, head.weight).shape[0]
    size = max(1, _LOGIT_ENTRIES // vocabulary)
    parts = []
    for start in range(0, max(1, len(tokens)), size):
        cut = slice(start, start + size)
        args = (
            hidden[cut],
            head,
            tokens[cut],
            None if chosen is None else chosen[cut],
            temperature,
            entropy_gradient,
            collision,
        )
        if len(tokens) > size and torch.is_grad_enabled():
            parts.append(checkpoint(_statistics, *args, use_reentrant=False))
        else:
            parts.append(_statistics(*args))
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    return TokenStatistics(
        columns[0],
        columns[1],
        chosen_logp=None if chosen is None else columns[2],
        collision=columns[-1] if collision else None,
    )


def response_hidden(policy: nn.Module, tokens: Tensor, attention_mask: Tensor, prompt_width: int) -> Tensor:
    """The decoder's hidden states [B, T, d] that predict the response tokens of `tokens` [B, P + T].

    `tokens` are left-padded prompts of width P = `prompt_width`, then T response positions; `attention_mask`
    [B, P + T] is 1 at real tokens.
    """
    if is_by_lab(policy):
        return response_states(policy, tokens, attention_mask, prompt_width)
    positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    states: Tensor = policy.get_decoder()(  # type: ignore[operator]
        input_ids=tokens[:, :-1],
        attention_mask=attention_mask[:, :-1],
        position_ids=positions[:, :-1],
        use_cache=False,
    ).last_hidden_state
    return states[:, prompt_width - 1 :]


def hidden_statistics(
    policy: nn.Module,
    hidden: Tensor,
    responses: Tensor,
    *,
    temperature: float = 1.0,
    chosen: Tensor | None = None,
    full: bool = False,
    entropy_gradient: bool = False,
    collision: bool = False,
) -> TokenStatistics:
    """Statistics of `responses` [B, T] from the hidden states [B, T, d] of `response_hidden`.

    Logits are divided by `temperature`, as in sampling. `chosen` [B, T, K] requests the log-probabilities of further
    tokens, `full` the whole distributions [B, T, V], `collision` the sums of their squared probabilities. Values at
    padding are finite and meaningless.
    """
    head: nn.Module = policy.get_output_embeddings()  # type: ignore[operator]
    shape = responses.shape
    flat = head_statistics(
        hidden.flatten(0, 1),
        head,
        responses.reshape(-1),
        None if chosen is None else chosen.flatten(0, 1),
        temperature,
        entropy_gradient,
        collision,
    )
    distribution = None
    if full:
        with torch.no_grad():
            distribution = torch.log_softmax(head(hidden.detach()).float() / temperature, dim=-1)
    return TokenStatistics(
        logp=flat.logp.view(shape),
        entropy=flat.entropy.view(shape),
        chosen_logp=None if flat.chosen_logp is None else flat.chosen_logp.view(*shape, -1),
        log_distribution=distribution,
        collision=None if flat.collision is None else flat.collision.view(shape),
    )


def token_statistics(
    policy: nn.Module,
    tokens: Tensor,
    attention_mask: Tensor,
    prompt_width: int,
    *,
    temperature: float = 1.0,
    chosen: Tensor | None = None,
    full: bool = False,
    entropy_gradient: bool = False,
    collision: bool = False,
) -> TokenStatistics:
    """`hidden_statistics` of the hidden states that `response_hidden` computes."""
    return hidden_statistics(
        policy,
        response_hidden(policy, tokens, attention_mask, prompt_width),
        tokens[:, prompt_width:],
        temperature=temperature,
        chosen=chosen,
        full=full,
        entropy_gradient=entropy_gradient,
        collision=collision,
    )

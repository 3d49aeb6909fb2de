"""Log-probabilities of sampled tokens without a [B, T, V] tensor in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from cppo_lab.models.chunked_head import ChunkedHead, HeadOptions
from cppo_lab.models.decoder.trunk import response_states
from cppo_lab.models.implementation import is_by_lab

# Logits that are kept for the backward pass rather than computed again: 4 M entries are 16 MiB in float32.
_KEPT_ENTRIES = 1 << 22


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
    hidden: Tensor, head: nn.Module, tokens: Tensor, chosen: Tensor | None, options: HeadOptions
) -> TokenStatistics:
    log_distribution = torch.log_softmax(head(hidden).float() / options.temperature, dim=-1)
    logp = log_distribution.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    fixed = log_distribution.detach()
    source = log_distribution if options.entropy_gradient else fixed
    return TokenStatistics(
        logp,
        entropy=-(source.exp() * source).sum(-1),
        chosen_logp=None if chosen is None else fixed.gather(-1, chosen),
        collision=(2 * fixed).exp().sum(-1) if options.collision else None,
    )


def head_statistics(
    hidden: Tensor,
    head: nn.Module,
    tokens: Tensor,
    mask: Tensor,
    chosen: Tensor | None,
    options: HeadOptions,
) -> TokenStatistics:
    """Statistics of `tokens` [N] under the output head's distribution at `hidden` [N, d]; `chosen` is [N, K].

    Where the logits are many, positions outside `mask` [N] never reach the head, and those inside go by `ChunkedHead`.
    """
    weight = cast(Tensor, head.weight)
    if len(tokens) * len(weight) <= _KEPT_ENTRIES:
        return _statistics(hidden, head, tokens, chosen, options)
    inside = mask.nonzero().squeeze(-1)
    found = ChunkedHead.apply(
        hidden[inside],
        weight,
        getattr(head, "bias", None),
        tokens[inside],
        None if chosen is None else chosen[inside],
        options,
    )

    def placed(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        return values.new_zeros(len(tokens), *values.shape[1:]).index_copy(0, inside, values)

    logp, entropy, chosen_logp, collision = map(placed, found)
    assert logp is not None
    assert entropy is not None
    return TokenStatistics(logp, entropy, chosen_logp, collision=collision)


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
    response_mask: Tensor,
    *,
    temperature: float = 1.0,
    chosen: Tensor | None = None,
    full: bool = False,
    entropy_gradient: bool = False,
    collision: bool = False,
) -> TokenStatistics:
    """Statistics of `responses` [B, T], real where `response_mask` [B, T], from `response_hidden`'s states [B, T, d].

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
        response_mask.reshape(-1),
        None if chosen is None else chosen.flatten(0, 1),
        HeadOptions(temperature, entropy_gradient, collision),
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
        attention_mask[:, prompt_width:].bool(),
        temperature=temperature,
        chosen=chosen,
        full=full,
        entropy_gradient=entropy_gradient,
        collision=collision,
    )

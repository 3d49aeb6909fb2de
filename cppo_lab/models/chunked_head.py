"""The output head of a policy and the statistics of its distributions, in memory that does not grow with positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_ROWS = 512
"""Positions of a chunk at least: every chunk reads the head's weight, and adds to a gradient of its size."""
_CHUNK_ENTRIES = 1 << 22
# Rows that the element-wise passes over a chunk on a CPU take at a time, so that its caches hold them.
_BLOCK_ENTRIES = 1 << 18
# The part of a GPU's memory that the logits of a chunk may fill.
_GPU_SHARE = 64


@dataclass(frozen=True)
class HeadOptions:
    """What is asked of the head: logits over `temperature`, and the optional statistics of `TokenStatistics`."""

    temperature: float = 1.0
    entropy_gradient: bool = False
    collision: bool = False


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Positions whose logits exist at once."""
    entries = _CHUNK_ENTRIES
    if device.type == "cuda":
        entries = torch.cuda.get_device_properties(device).total_memory // (_GPU_SHARE * 4)
    return max(MIN_ROWS, entries // vocabulary)


class ChunkedHead(torch.autograd.Function):
    """Statistics of tokens [N] under softmax(`hidden` [N, d] `weight`ᵀ [d, V] + `bias` [V]), chunk by chunk.

    Returns log-probabilities, entropies, those of `chosen` [N, K] or None, and collision probabilities or None, all [N]
    and float32 (float64 for float64 inputs). The backward pass computes the logits once more, skips positions without a
    gradient, and sums the gradient of the head over chunks in float32, whatever the precision of the products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        chosen: Tensor | None,
        options: HeadOptions,
    ) -> tuple[Tensor | None, ...]:
        """See the class."""
        dtype = _product_dtype(hidden)
        states, matrix = hidden.to(dtype), weight.to(dtype)
        wide = torch.promote_types(dtype, torch.float32)
        logp, entropy, total = (torch.empty(len(tokens), dtype=wide, device=hidden.device) for _ in range(3))
        found = None if chosen is None else torch.empty(chosen.shape, dtype=wide, device=hidden.device)
        collision = torch.empty_like(logp) if options.collision else None
        with torch.autocast(hidden.device.type, enabled=False):
            for chunk in _slices(len(tokens), chunk_rows(len(weight), hidden.device)):
                logits = _logits(states[chunk], matrix, bias, options.temperature)
                for block in _blocks(logits):
                    rows = slice(chunk.start + block.start, chunk.start + block.stop)
                    distribution = torch.log_softmax(logits[block], -1)
                    of_tokens = tokens[rows].unsqueeze(-1)
                    logp[rows] = distribution.gather(-1, of_tokens).squeeze(-1)
                    total[rows] = logits[block].gather(-1, of_tokens).squeeze(-1) - logp[rows]
                    if found is not None and chosen is not None:
                        found[rows] = distribution.gather(-1, chosen[rows])
                    probabilities = distribution.exp()
                    if collision is not None:
                        collision[rows] = probabilities.square().sum(-1)
                    entropy[rows] = -distribution.mul_(probabilities).sum(-1)
                # Before the next chunk's are made.
                del logits
        ctx.save_for_backward(hidden, weight, bias, tokens, total, entropy)
        ctx.options, ctx.dtype = options, dtype
        fixed = [each for each in (found, collision) if each is not None]
        ctx.mark_non_differentiable(*fixed, *([] if options.entropy_gradient else [entropy]))
        return logp, entropy, found, collision

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of `hidden`, `weight` and `bias`, where they are needed."""
        hidden, weight, bias, tokens, total, entropy = ctx.saved_tensors
        of_logp, of_entropy = grads[0], grads[1] if ctx.options.entropy_gradient else None
        live = torch.zeros_like(tokens, dtype=torch.bool)
        for grad in (of_logp, of_entropy):
            live |= False if grad is None else grad != 0
        kept = live.nonzero().squeeze(-1)
        states, matrix = hidden[kept].to(ctx.dtype), weight.to(ctx.dtype)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        sums = _Sums(
            torch.zeros_like(hidden) if needs_hidden else None,
            torch.zeros_like(weight, dtype=total.dtype) if needs_weight else None,
            torch.zeros_like(bias, dtype=total.dtype) if needs_bias else None,
        )
        with torch.autocast(hidden.device.type, enabled=False):
            for chunk in _slices(len(kept), chunk_rows(len(weight), hidden.device)):
                rows = kept[chunk]
                logits = _logits(states[chunk], matrix, bias, ctx.options.temperature)
                for block in _blocks(logits):
                    part = rows[block]
                    _to_gradient(
                        logits[block],
                        tokens[part],
                        total[part],
                        None if of_logp is None else of_logp[part],
                        None if of_entropy is None else (of_entropy[part], entropy[part]),
                    )
                if ctx.options.temperature != 1:
                    logits.div_(ctx.options.temperature)
                sums.add(logits, states[chunk], matrix, rows)
                del logits
        return sums.hidden, _as(sums.weight, weight), _as(sums.bias, bias), None, None, None


@dataclass(frozen=True)
class _Sums:
    """Gradients of the inputs, summed over chunks; None for what needs none."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    def add(self, of_logits: Tensor, states: Tensor, matrix: Tensor, rows: Tensor) -> None:
        """Add what a chunk with states [n, d] at positions `rows` [n] gives, from the gradient [n, V] of its logits."""
        if self.bias is not None:
            self.bias.add_(of_logits.sum(0))
        narrow = of_logits.to(states.dtype)
        if self.hidden is not None:
            self.hidden[rows] = (narrow @ matrix).to(self.hidden.dtype)
        if self.weight is None:
            return
        if states.dtype == self.weight.dtype:
            self.weight.addmm_(narrow.T, states)
        elif states.device.type == "cuda":
            self.weight.add_(torch.mm(narrow.T, states, out_dtype=self.weight.dtype))
        else:
            self.weight.add_(narrow.T @ states)


def _to_gradient(
    logits: Tensor,
    tokens: Tensor,
    total: Tensor,
    of_logp: Tensor | None,
    of_entropy: tuple[Tensor, Tensor] | None,
) -> None:
    """Turn `logits` [n, V], with log-sum-exps `total` [n], into the gradient of the loss with respect to them.

    From the gradients of the log-probabilities of `tokens` [n], and of the entropies with their values: the logit of k
    has g (1[k = token] - p_k) - h p_k (log p_k + H).
    """
    distribution = logits.sub_(total.unsqueeze(-1))
    weights = 0 if of_logp is None else of_logp.unsqueeze(-1)
    if of_entropy is None:
        distribution.exp_().mul_(-weights)
    else:
        probabilities = distribution.exp()
        grad, values = (each.unsqueeze(-1) for each in of_entropy)
        distribution.add_(values).mul_(grad).add_(weights).mul_(probabilities).neg_()
    if of_logp is not None:
        distribution.scatter_add_(-1, tokens.unsqueeze(-1), of_logp.unsqueeze(-1))


def _logits(states: Tensor, matrix: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """Logits [n, V] over the temperature, in float32 at least, as a tensor of their own."""
    logits = F.linear(states, matrix, None if bias is None else bias.to(states.dtype))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1 else logits.div_(temperature)


def _product_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _slices(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _blocks(logits: Tensor) -> list[slice]:
    whole = logits.device.type != "cpu"
    return _slices(len(logits), len(logits) if whole else max(1, _BLOCK_ENTRIES // logits.shape[-1]))


def _as(gradient: Tensor | None, like: Tensor | None) -> Tensor | None:
    return None if gradient is None or like is None else gradient.to(like.dtype)

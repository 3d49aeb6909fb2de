"""The native engine: batched sampling with a KV cache, in the training process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cppo_lab.models.lora import plain_copy, plain_parameters
from cppo_lab.rollouts.cached_decoder import cached_decoder
from cppo_lab.rollouts.engine_config import WeightFormat
from cppo_lab.rollouts.quantise import rounded
from cppo_lab.rollouts.rollout import Rollout, SamplingSettings

# Finished sequences leave the batch every so many tokens; leaving at every token would cost more copies.
_COMPACT_EVERY = 8


class NativeEngine:
    """Samples from its own copy of the weights, held in the format `weights`.

    `bfloat16` also computes in bfloat16; `int8`, `int4` and `int3` (symmetric per row, round to nearest) round the
    weights and compute in the policy's dtype. The mismatch between rollout policy and policy is therefore real: the
    recorded log-probabilities are those of the copy. At most `batch_size` sequences are sampled at once.
    """

    def __init__(
        self,
        policy: nn.Module,
        *,
        pad_token: int,
        eos_token: int,
        weights: WeightFormat = "same",
        batch_size: int = 512,
    ) -> None:
        self._format: WeightFormat = weights
        self._pad, self._eos, self._batch_size = pad_token, eos_token, batch_size
        self._policy = plain_copy(policy).eval().requires_grad_(False)
        if weights == "bfloat16":
            self._policy = self._policy.bfloat16()
        self._version = 0
        self.load_weights(policy, 0)

    def load_weights(self, policy: nn.Module, version: int) -> None:
        """See `RolloutEngine.load_weights`."""
        with torch.no_grad():
            source = dict(plain_parameters(policy))
            for name, parameter in self._policy.named_parameters():
                parameter.copy_(rounded(source[name], self._format))
        self._version = version

    @torch.no_grad()
    def sample(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> Rollout:
        """See `Sampler.sample`."""
        device = next(self._policy.parameters()).device
        tokens, mask = self._left_padded(prompts)
        uniforms = _uniforms(len(prompts), settings)
        store = _Store(len(prompts), settings, self._pad, self._eos, device)
        for start in range(0, len(prompts), self._batch_size):
            rows = torch.arange(start, min(start + self._batch_size, len(prompts)))
            store.waiting -= len(rows)
            self._fill(
                store,
                rows.to(device),
                tokens[rows].to(device),
                mask[rows].to(device),
                uniforms[rows].to(device),
            )
        return store.rollout(tokens.to(device), mask.to(device), self._version)

    def rest(self) -> None:
        """See `RolloutEngine.rest`; the copy of the weights is kept."""

    def close(self) -> None:
        """See `Sampler.close`."""
        del self._policy

    def _left_padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        width = max(len(prompt) for prompt in prompts)
        tokens = torch.tensor([[self._pad] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[False] * (width - len(p)) + [True] * len(p) for p in prompts])
        return tokens, mask

    def _fill(self, store: _Store, rows: Tensor, tokens: Tensor, mask: Tensor, uniforms: Tensor) -> None:
        """Sample responses for `rows` of the store until all have ended or the length limit is reached."""
        decoder = cached_decoder(self._policy, tokens, mask, store.settings.max_new_tokens)
        alive = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        for t in range(store.settings.max_new_tokens):
            logits = decoder.logits.float()
            if store.settings.repetition_penalty != 1:
                so_far = torch.cat([tokens, store.tokens[rows, :t]], dim=-1)
                known = torch.nn.functional.pad(mask, (0, t), value=True)
                logits = penalised(logits, so_far, known, store.settings.repetition_penalty)
            log_distribution = torch.log_softmax(logits / store.settings.temperature, dim=-1)
            if store.settings.top_p < 1:
                log_distribution = nucleus(log_distribution, store.settings.top_p)
            # Logarithms of probabilities are rounded more coarsely than logits, and can tie where those do not.
            greedy = store.settings.greedy
            chosen = logits.argmax(-1) if greedy else _draw(log_distribution, uniforms[:, t])
            store.write(rows[alive], t, chosen[alive], log_distribution[alive])
            alive = alive & ~store.ends(chosen)
            if (t + 1) % _COMPACT_EVERY == 0:
                alive = alive & ~store.complete(rows, alive, t)
                store.report(int(alive.sum()), t + 1)
            if not alive.any():
                break
            if (t + 1) % _COMPACT_EVERY == 0 and not alive.all():
                keep = alive.nonzero().squeeze(-1)
                decoder.keep(keep)
                rows, tokens, mask, chosen, uniforms = (
                    x[keep] for x in (rows, tokens, mask, chosen, uniforms)
                )
                alive = alive[keep]
            if t + 1 < store.settings.max_new_tokens:
                decoder.append(chosen)


def _uniforms(rows: int, settings: SamplingSettings) -> Tensor:
    """Uniform numbers [rows, T], float64, drawn before sampling: no row's draws depend on another row."""
    shape, generator = (rows, settings.max_new_tokens), torch.Generator()
    if settings.row_seeds is None:
        before = settings.rows_before
        whole = (before + rows, settings.max_new_tokens)
        return torch.rand(whole, generator=generator.manual_seed(settings.seed), dtype=torch.float64)[before:]
    uniforms = torch.empty(shape, dtype=torch.float64)
    for row, seed in zip(uniforms, settings.row_seeds, strict=True):
        torch.rand(settings.max_new_tokens, generator=generator.manual_seed(seed), out=row)
    return uniforms


def _draw(log_distribution: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF sampling of one token per row of `log_distribution` [N, V] by `uniform` [N] in [0, 1)."""
    cumulative = log_distribution.double().exp().cumsum(-1)
    # Scaling by the total keeps the draw within the vocabulary however the sum is rounded.
    threshold = uniform.unsqueeze(-1) * cumulative[:, -1:]
    return (cumulative <= threshold).sum(-1).clamp(max=log_distribution.shape[-1] - 1)


def nucleus(log_distribution: Tensor, top_p: float) -> Tensor:
    """`log_distribution` [N, V] without the tail beyond `top_p`, renormalised (Holtzman et al. 2020, Eq. 2 and 3).

    The smallest set of most likely tokens with probability at least `top_p` is kept.
    """
    sorted_logp, order = log_distribution.sort(dim=-1, descending=True)
    before = sorted_logp.exp().cumsum(-1) - sorted_logp.exp()
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return torch.log_softmax(log_distribution.masked_fill(dropped, -torch.inf), dim=-1)


def penalised(logits: Tensor, tokens: Tensor, mask: Tensor, penalty: float) -> Tensor:
    """`logits` [N, V] with a repetition penalty, as in transformers (Keskar et al. 2019).

    For tokens that occur in `tokens` [N, L] where `mask` [N, L] is set, positive logits are divided by `penalty` and
    negative ones multiplied by it.
    """
    size = logits.shape[-1]
    # Padding goes to an extra column, which is cut off.
    occurred = mask.new_zeros(len(logits), size + 1).scatter(1, tokens.masked_fill(~mask, size), True)[
        :, :size
    ]
    return torch.where(occurred, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


class _Store:
    """The columns of a rollout while it is sampled. `waiting` rows have not been begun."""

    def __init__(
        self, rows: int, settings: SamplingSettings, pad: int, eos: int, device: torch.device
    ) -> None:
        self.settings = settings
        self.waiting = rows
        self._ends = torch.tensor((eos, *settings.stop_tokens), device=device)
        shape = (rows, settings.max_new_tokens)
        self.tokens = torch.full(shape, pad, device=device)
        self.logp = torch.zeros(shape, device=device)
        self.mask = torch.zeros(shape, dtype=torch.bool, device=device)
        self.topk_ids: Tensor | None = None
        self.topk_logp: Tensor | None = None
        self.full: Tensor | None = None
        self.entropy = torch.zeros(shape, device=device) if settings.entropy else None

    def ends(self, tokens: Tensor) -> Tensor:
        """Which of `tokens` [N] end a response, bool [N]."""
        return torch.isin(tokens, self._ends)

    def complete(self, rows: Tensor, alive: Tensor, t: int) -> Tensor:
        """Which of the `alive` ones of `rows` [N] hold a stop string in their last tokens up to `t`, bool [N]."""
        done = torch.zeros_like(alive)
        if self.settings.stops is not None:
            for place in alive.nonzero().flatten().tolist():
                tokens = self.tokens[rows[place], : t + 1].tolist()
                done[place] = self.settings.stops.seen(tokens, _COMPACT_EVERY)
        return done

    def report(self, alive: int, length: int) -> None:
        """Say how far sampling is, with `alive` responses of `length` tokens that go on."""
        if self.settings.on_tokens is not None:
            sampled, limit = int(self.mask.sum()), self.settings.max_new_tokens
            self.settings.on_tokens(sampled, sampled + alive * (limit - length) + self.waiting * limit)

    def write(self, rows: Tensor, t: int, chosen: Tensor, log_distribution: Tensor) -> None:
        self.tokens[rows, t] = chosen
        self.logp[rows, t] = log_distribution.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
        self.mask[rows, t] = True
        if self.settings.topk:
            values, ids = log_distribution.topk(min(self.settings.topk, log_distribution.shape[-1]), dim=-1)
            if self.topk_ids is None or self.topk_logp is None:
                self.topk_ids = ids.new_zeros((*self.tokens.shape, ids.shape[-1]))
                self.topk_logp = values.new_zeros((*self.tokens.shape, ids.shape[-1]))
            self.topk_ids[rows, t], self.topk_logp[rows, t] = ids, values
        if self.settings.full:
            if self.full is None:
                self.full = log_distribution.new_zeros((*self.tokens.shape, log_distribution.shape[-1]))
            self.full[rows, t] = log_distribution
        if self.entropy is not None:
            # A token without probability adds nothing to the entropy.
            self.entropy[rows, t] = torch.special.entr(log_distribution.exp()).sum(-1)

    def rollout(self, prompts: Tensor, prompt_mask: Tensor, version: int) -> Rollout:
        longest = max(1, int(self.mask.sum(-1).max()))
        mask = self.mask[:, :longest]
        last = self.tokens.gather(1, (mask.sum(-1, keepdim=True) - 1).clamp(min=0)).squeeze(-1)
        extra = (self.topk_ids, self.topk_logp, self.full, self.entropy)
        topk_ids, topk_logp, full, entropy = (None if x is None else x[:, :longest] for x in extra)
        return Rollout(
            tokens=torch.cat([prompts, self.tokens[:, :longest]], dim=-1),
            attention_mask=torch.cat([prompt_mask, mask], dim=-1),
            response_mask=mask,
            logp=self.logp[:, :longest],
            finished=self.ends(last),
            prompt_width=prompts.shape[1],
            policy_version=version,
            topk_ids=topk_ids,
            topk_logp=topk_logp,
            log_distribution=full,
            entropy=entropy,
        )

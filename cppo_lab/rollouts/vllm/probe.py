"""The check, after each push, that vLLM has the trainer's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cppo_lab.errors import UserError
from cppo_lab.models.loading import Policy
from cppo_lab.models.logprobs import token_statistics
from cppo_lab.rollouts.vllm.offline import OfflineEngine

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.15}
"""The largest mean difference of log-probabilities, in nats, accepted as rounding, by the engine's dtype.

Measured on the ladder and on models of eight layers, with and without experts: rounding gives at most 3e-6 and 0.05;
weights that differ by 0.1% and 5% of their spread give at least 2e-3 and 0.1 (docs/engines.md).
"""
_CONTINUED = 8
_MOST_LIKELY = 20
_SEED = 0


class Probe:
    """A fixed prompt of random tokens, longer than a block of the prefix cache, continued greedily by the engine.

    At each new token the log-probabilities of the most likely tokens are compared with the trainer's. They include
    improbable tokens, which react most to a change of the weights. The prompt is in the prefix cache from the previous
    check, so that a cache of old weights is noticed too. (In a context shorter than a block, no prefix is cached.)
    """

    def __init__(self, engine: OfflineEngine, vocabulary: int, dtype: str) -> None:
        self._engine, self._dtype = engine, dtype
        self._vocabulary = vocabulary
        length = min(engine.block_size + 1, engine.context - _CONTINUED)
        generator = torch.Generator().manual_seed(_SEED)
        self._prompt: list[int] = torch.randint(vocabulary, (length,), generator=generator).tolist()

    def check(self, policy: Policy, network: nn.Module, version: int) -> None:
        """Raise UserError unless the engine agrees with `network` up to the rounding of the engine's dtype."""
        gap = self.gap(policy, network)
        if not gap <= TOLERANCE[self._dtype]:
            raise UserError(
                f"vLLM does not have the trainer's weights: after the push of version {version}, log-probabilities "
                f"of the probe differ by {gap:.2g} nats on average, of which {self._dtype} explains "
                f"{TOLERANCE[self._dtype]:g}; nothing was trained on such rollouts."
            )

    @torch.no_grad()
    def gap(self, policy: Policy, network: nn.Module) -> float:
        """The mean absolute difference of log-probabilities, in nats."""
        from vllm import SamplingParams

        most = min(_MOST_LIKELY, self._vocabulary)
        parameters = SamplingParams(
            temperature=0.0,
            max_tokens=_CONTINUED,
            logprobs=most,
            ignore_eos=True,
            detokenize=False,
            flat_logprobs=True,
        )
        found: Any = self._engine.generate([self._prompt], [parameters])[0].outputs[0]
        device = next(network.parameters()).device
        ids = torch.tensor(found.logprobs.token_ids, device=device).view(1, _CONTINUED, -1)
        engine = torch.tensor(found.logprobs.logprobs, device=device).view(1, _CONTINUED, -1)
        tokens = torch.tensor([[*self._prompt, *found.token_ids]], device=device)
        with policy.computing():
            trainer = token_statistics(
                network, tokens, torch.ones_like(tokens, dtype=torch.bool), len(self._prompt), chosen=ids
            ).chosen_logp
        assert trainer is not None, "`chosen` was given"
        return float((engine - trainer).abs().mean())

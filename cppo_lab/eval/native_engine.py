"""Text from the lab's own engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cppo_lab.eval.engines import Decoding, Request, Response
from cppo_lab.eval.generation_config import model_settings
from cppo_lab.eval.local_text import LocalText, response
from cppo_lab.eval.protocols import Prompt
from cppo_lab.models.context import context_length
from cppo_lab.models.loading import Policy
from cppo_lab.rollouts.native import NativeEngine

# The native engine asks every eight tokens.
_ASKED_EVERY = 8


class NativeTextEngine:
    """Samples with `policy` in its own dtype."""

    def __init__(self, policy: Policy, batch_size: int) -> None:
        self.policy = policy
        self._engine = NativeEngine(
            policy.network,
            pad_token=policy.pad_token,
            eos_token=policy.eos_token,
            weights="bfloat16" if policy.dtype == "bfloat16" else "same",
            batch_size=batch_size,
        )
        self.settings = model_settings(policy.network)
        context = context_length(policy.network.config, policy.tokenizer)
        self._text = LocalText(policy.tokenizer, context, self.settings)

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[Response]:
        """See `TextEngine.generate`. Raises UserError where the context has no room for a prompt."""
        prompts, stops = self._text.prompts(requests, decoding), self._text.stops(requests)
        settings = self._text.sampling(requests, decoding)
        if stops.strings:
            settings = replace(settings, is_complete=lambda tokens: stops.seen(tokens, _ASKED_EVERY))
        rollout = self._engine.sample(prompts, settings)
        rows = zip(rollout.responses, rollout.response_mask, rollout.finished.tolist(), strict=True)
        return [response(row[mask].tolist(), ended, stops) for row, mask, ended in rows]

    def describe(self) -> dict[str, Any]:
        """See `TextEngine.describe`."""
        parameters = sum(parameter.numel() for parameter in self.policy.network.parameters())
        return {"engine": "native", "dtype": self.policy.dtype, "parameters": parameters}

    def cut_prompts(self, prompts: Sequence[Prompt], decoding: Decoding) -> int:
        """See `TextEngine.cut_prompts`."""
        return self._text.cut_prompts(prompts, decoding)

    def close(self) -> None:
        """See `TextEngine.close`."""
        self._engine.close()

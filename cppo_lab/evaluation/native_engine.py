"""Text from the lab's own engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.evaluation.engines import Decoding, Request, Response
from cppo_lab.evaluation.generation_config import model_settings
from cppo_lab.evaluation.protocols import Prompt
from cppo_lab.evaluation.stops import StopStrings
from cppo_lab.policies.loading import Policy
from cppo_lab.rollouts.native import NativeEngine
from cppo_lab.rollouts.rollout import SamplingSettings
from cppo_lab.streams import Stream, stream_seed

_DEFAULT_CONTEXT = 2048
_UNLIMITED = 10**9
# The native engine asks every eight tokens.
_ASKED_EVERY = 8


def context_length(policy: Policy) -> int:
    """The model's longest context in tokens, found where lm-evaluation-harness looks for it."""
    config = policy.network.config.get_text_config()
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    longest = policy.tokenizer.model_max_length
    return int(longest) if longest and longest < _UNLIMITED else _DEFAULT_CONTEXT


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
        self._context = context_length(policy)
        self.settings = model_settings(policy.network)

    def prompt_ids(self, prompt: Prompt, room: int) -> list[int]:
        """The prompt's tokens, its beginning cut off where they would leave less than `room` in the context."""
        return self._ids(prompt)[-(self._context - room) :]

    def _ids(self, prompt: Prompt) -> list[int]:
        bos = self.policy.tokenizer.bos_token
        has_specials = prompt.is_chat or bool(bos and prompt.text.startswith(bos))
        ids: list[int] = self.policy.tokenizer(prompt.text, add_special_tokens=not has_specials).input_ids
        return ids

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[Response]:
        """See `TextEngine.generate`. Raises UserError where the context has no room for a prompt."""
        room = decoding.room or decoding.max_new_tokens
        if room >= self._context:
            raise UserError(
                f"--max-new-tokens {room}: must be less than the model's context of {self._context} tokens, "
                "in which the prompt needs room too."
            )
        stops = StopStrings(self.policy.tokenizer, requests[0].stops)
        settings = SamplingSettings(
            max_new_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature or 1.0,
            greedy=decoding.temperature == 0,
            top_p=decoding.top_p,
            repetition_penalty=decoding.repetition_penalty or 1.0,
            stop_tokens=self.settings.end_tokens,
            is_complete=(lambda tokens: stops.seen(tokens, _ASKED_EVERY)) if stops.strings else None,
            row_seeds=tuple(
                stream_seed(decoding.seed, Stream.EVALUATION, request.problem, request.sample)
                for request in requests
            ),
        )
        prompts = [self.prompt_ids(request.prompt, room) for request in requests]
        rollout = self._engine.sample(prompts, settings)
        responses = []
        for row, mask, ended in zip(
            rollout.responses, rollout.response_mask, rollout.finished.tolist(), strict=True
        ):
            tokens, stopped = stops.cut(row[mask].tolist())
            responses.append(Response(stops.text(tokens), len(tokens), bool(ended or stopped)))
        return responses

    def describe(self) -> dict[str, Any]:
        """See `TextEngine.describe`."""
        parameters = sum(parameter.numel() for parameter in self.policy.network.parameters())
        return {"engine": "native", "dtype": self.policy.dtype, "parameters": parameters}

    def cut_prompts(self, prompts: Sequence[Prompt], decoding: Decoding) -> int:
        """See `TextEngine.cut_prompts`."""
        room = decoding.room or decoding.max_new_tokens
        return sum(len(self._ids(prompt)) > self._context - room for prompt in prompts)

    def close(self) -> None:
        """See `TextEngine.close`."""
        self._engine.close()

"""What engines in this process share: from prompts to tokens, from tokens to responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.eval.engines import Decoding, Request, Response
from cppo_lab.eval.generation_config import ModelSettings
from cppo_lab.eval.protocols import Prompt
from cppo_lab.eval.stops import StopStrings
from cppo_lab.rng import Stream, stream_seed
from cppo_lab.rollouts.rollout import SamplingSettings


@dataclass(frozen=True)
class LocalText:
    """A model's tokenizer, its context in tokens, and its own settings."""

    tokenizer: Any
    context: int
    settings: ModelSettings

    def _ids(self, prompt: Prompt) -> list[int]:
        bos = self.tokenizer.bos_token
        has_specials = prompt.is_chat or bool(bos and prompt.text.startswith(bos))
        ids: list[int] = self.tokenizer(prompt.text, add_special_tokens=not has_specials).input_ids
        return ids

    def prompts(self, requests: Sequence[Request], decoding: Decoding) -> list[list[int]]:
        """Token ids, the beginning of a prompt cut off where it would leave too little room in the context.

        Raises UserError where there is no room for a prompt at all.
        """
        room = decoding.room or decoding.max_new_tokens
        if room >= self.context:
            raise UserError(
                f"--max-new-tokens {room}: must be less than the model's context of {self.context} tokens, "
                "in which the prompt needs room too."
            )
        return [self._ids(request.prompt)[-(self.context - room) :] for request in requests]

    def cut_prompts(self, prompts: Sequence[Prompt], decoding: Decoding) -> int:
        """How many prompts lose their beginning."""
        room = decoding.room or decoding.max_new_tokens
        return sum(len(self._ids(prompt)) > self.context - room for prompt in prompts)

    def stops(self, requests: Sequence[Request]) -> StopStrings:
        """The strings at which these responses end."""
        return StopStrings(self.tokenizer, requests[0].stops)

    def sampling(self, requests: Sequence[Request], decoding: Decoding) -> SamplingSettings:
        """How the engine is to sample; each request's draws depend on its place alone."""
        return SamplingSettings(
            max_new_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature or 1.0,
            greedy=decoding.temperature == 0,
            top_p=decoding.top_p,
            repetition_penalty=decoding.repetition_penalty or 1.0,
            stop_tokens=self.settings.end_tokens,
            row_seeds=tuple(
                stream_seed(decoding.seed, Stream.EVALUATION, request.problem, request.sample)
                for request in requests
            ),
        )


def response(sampled: Sequence[int], ended: bool, stops: StopStrings) -> Response:
    """The response in sampled tokens; `ended` tells whether the last of them is an end token."""
    tokens, stopped = stops.cut(sampled)
    return Response(stops.text(tokens), len(tokens), ended or stopped)

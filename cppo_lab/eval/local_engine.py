"""Every rollout engine as a text engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.eval.generation_config import settings_in
from cppo_lab.eval.protocols import Prompt
from cppo_lab.eval.text_engine import Decoding, Request, Response
from cppo_lab.rng import evaluation_seed
from cppo_lab.rollouts.rollout import OnTokens, SamplingSettings
from cppo_lab.rollouts.serving import ServedModel
from cppo_lab.rollouts.stops import StopStrings


class LocalTextEngine:
    """Samples from a served model in this process; `name` is its engine's, `dtype` what it computes in."""

    def __init__(self, name: str, dtype: str, served: ServedModel) -> None:
        self._name, self._dtype, self._served = name, dtype, served
        self.settings = settings_in(served.generation_config)

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, on_tokens: OnTokens | None = None
    ) -> list[Response]:
        """See `TextEngine.generate`. Raises UserError where the context has no room for a prompt."""
        stops = StopStrings(self._served.tokenizer, requests[0].stops)
        settings = SamplingSettings(
            max_new_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature or 1.0,
            greedy=decoding.temperature == 0,
            top_p=decoding.top_p,
            repetition_penalty=decoding.repetition_penalty or 1.0,
            stop_tokens=self.settings.end_tokens,
            stops=stops if stops.strings else None,
            row_seeds=tuple(
                evaluation_seed(decoding.seed, request.problem, request.sample) for request in requests
            ),
            on_tokens=on_tokens,
        )
        prompts = self.prompt_ids([request.prompt for request in requests], decoding)
        rollout = self._served.sampler.sample(prompts, settings)
        rows = zip(rollout.responses, rollout.response_mask, rollout.finished.tolist(), strict=True)
        return [_response(row[mask].tolist(), ended, stops) for row, mask, ended in rows]

    def prompt_ids(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Token ids; a prompt that would leave too little room in the context loses its beginning.

        Raises UserError where the context has no room for a prompt at all.
        """
        room, context = decoding.room or decoding.max_new_tokens, self._served.context
        if room >= context:
            raise UserError(
                f"--max-new-tokens {room}: must be less than the model's context of {context} tokens, "
                "in which the prompt needs room too."
            )
        return [self._ids(prompt)[-(context - room) :] for prompt in prompts]

    def cut_prompts(self, prompts: Sequence[Prompt], decoding: Decoding) -> int:
        """See `TextEngine.cut_prompts`."""
        room = decoding.room or decoding.max_new_tokens
        return sum(len(self._ids(prompt)) > self._served.context - room for prompt in prompts)

    def _ids(self, prompt: Prompt) -> list[int]:
        tokenizer = self._served.tokenizer
        bos = tokenizer.bos_token
        has_specials = prompt.is_chat or bool(bos and prompt.text.startswith(bos))
        ids: list[int] = tokenizer(prompt.text, add_special_tokens=not has_specials).input_ids
        return ids

    def describe(self) -> dict[str, Any]:
        """See `TextEngine.describe`."""
        parameters = self._served.parameters
        counted = {} if parameters is None else {"parameters": parameters}
        return {"engine": self._name, "dtype": self._dtype, **counted}

    def close(self) -> None:
        """See `TextEngine.close`."""
        self._served.sampler.close()


def _response(sampled: Sequence[int], ended: bool, stops: StopStrings) -> Response:
    """The response in sampled tokens; `ended` says whether the last of them is an end token."""
    tokens, stopped = stops.cut(sampled)
    return Response(stops.text(tokens), len(tokens), ended or stopped)

"""Texts from a server with the OpenAI completions API: vLLM, SGLang, llama.cpp, TGI and others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cppo_lab.errors import UserError, first_line
from cppo_lab.eval.generation_config import ModelSettings
from cppo_lab.eval.protocols import Prompt
from cppo_lab.eval.text_engine import Decoding, Request, Response
from cppo_lab.rng import evaluation_seed
from cppo_lab.rollouts.rollout import OnTokens

_KEY_VARIABLE = "OPENAI_API_KEY"
_RETRIES = 5
_TIMEOUT_S = 600.0
_SEED_BITS = 31
# The API's limit; some servers accept more.
_MAX_STOPS = 4


class OpenAIClient:
    """Requests completions of `model` at `base_url` (ending in `/v1`), up to `concurrency` at a time.

    The API key is `$OPENAI_API_KEY`. Raises UserError if the client is not installed or the server does not answer.
    """

    def __init__(self, base_url: str, model: str, concurrency: int) -> None:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise UserError(
                "--engine openai: the client is not installed; install it with pip install 'cppo-lab[openai]'."
            ) from error
        self.base_url, self.model = base_url, model
        self.settings = ModelSettings()
        self._client = OpenAI(
            base_url=base_url,
            api_key=os.environ.get(_KEY_VARIABLE) or "none",
            max_retries=_RETRIES,
            timeout=_TIMEOUT_S,
        )
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="completions")

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, on_tokens: OnTokens | None = None
    ) -> list[Response]:
        """See `TextEngine.generate`."""
        found: list[Response] = []
        for response in self._threads.map(lambda request: self._complete(request, decoding), requests):
            found.append(response)
            if on_tokens is not None:
                sampled = sum(each.tokens for each in found)
                on_tokens(sampled, sampled + (len(requests) - len(found)) * decoding.max_new_tokens)
        return found

    def _complete(self, request: Request, decoding: Decoding) -> Response:
        from openai import OpenAIError

        seed = evaluation_seed(decoding.seed, request.problem, request.sample)
        try:
            answer = self._client.completions.create(
                model=self.model,
                prompt=request.prompt.text,
                max_tokens=decoding.max_new_tokens,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                stop=list(request.stops[:_MAX_STOPS]) or None,
                seed=seed % 2**_SEED_BITS,
            )
        except OpenAIError as error:
            raise UserError(
                f"--base-url {self.base_url}: the server did not complete a prompt ({first_line(error)[:200]}); "
                "finished responses are kept, and the same command resumes from them."
            ) from error
        choice = answer.choices[0]
        text = choice.text
        for stop in request.stops:
            text = text.split(stop)[0]
        used = answer.usage.completion_tokens if answer.usage else 0
        return Response(text, used, choice.finish_reason != "length")

    def cut_prompts(self, prompts: Sequence[Prompt], decoding: Decoding) -> int:
        """See `TextEngine.cut_prompts`; a server refuses prompts that do not fit."""
        return 0

    def describe(self) -> dict[str, Any]:
        """See `TextEngine.describe`."""
        return {"engine": "openai", "base_url": self.base_url}

    def close(self) -> None:
        """See `TextEngine.close`."""
        self._threads.shutdown()
        self._client.close()

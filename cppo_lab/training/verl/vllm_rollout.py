"""verl's vLLM server, which also samples whole rollouts as the lab asks for them, top-K log-probabilities included.

verl's own requests are answered as ever. Imports vLLM; it was composed and never ran on a GPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import ray
import torch
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from cppo_lab.rollouts.rollout import Rollout, SamplingSettings
from cppo_lab.rollouts.vllm.outputs import requests_for, rollout_of
from cppo_lab.training.verl.rollout import Share


class Server(vLLMHttpServer):
    """One server of a replica."""

    async def sample(
        self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, share: Share
    ) -> Rollout:
        """One response to each prompt."""
        ends = (share.end, *settings.stop_tokens)
        vocabulary = int(self.model_config.hf_config.get_text_config().vocab_size)
        own = replace(settings, rows_before=share.first)
        requests = requests_for(prompts, own, ends, vocabulary)
        answers = map(self._answer, requests.prompts, requests.parameters)
        outputs = await asyncio.gather(*answers)
        return rollout_of(outputs, own, ends, share.pad, self.global_steps or 0, torch.device("cpu"))

    async def _answer(self, prompt: Sequence[int], parameters: Any) -> Any:
        from vllm.inputs import TokensPrompt

        last = None
        asked = TokensPrompt(prompt_token_ids=list(prompt))
        async for output in self.engine.generate(
            prompt=asked, sampling_params=parameters, request_id=uuid4().hex
        ):
            last = output
        if last is None or any(each.finish_reason == "abort" for each in last.outputs):
            raise RuntimeError("vLLM aborted a request of the rollout")
        return last


class Replica(vLLMReplica):
    """verl's replica with the lab's server in it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.server_class = ray.remote(Server)

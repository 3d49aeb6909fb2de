"""Text from vLLM, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from cppo_lab.errors import UserError
from cppo_lab.eval.engines import Decoding, Request, Response
from cppo_lab.eval.generation_config import ModelSettings, settings_in
from cppo_lab.eval.local_text import LocalText, response
from cppo_lab.eval.protocols import Prompt
from cppo_lab.models.context import context_length
from cppo_lab.rollouts.vllm.offline import OfflineEngine, OfflineSettings
from cppo_lab.rollouts.vllm.outputs import requests_for
from cppo_lab.rollouts.vllm.support import check_served

# An evaluation has the device to itself.
_GPU_SHARE = 0.9
_KV_CACHE_GIB = 1.0


class VllmTextEngine:
    """Serves the model folder or hub id `model`; its weights are read by vLLM alone.

    Raises UserError where vLLM cannot serve it, or the tokenizer cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        revision: str | None,
        dtype: Literal["float32", "bfloat16"],
        device: str,
        batch_size: int,
    ) -> None:
        self._dtype = dtype
        self.tokenizer, config, self.settings = _about(model, revision)
        check_served(f"model {model}", config.to_dict(), device)
        self._vocabulary = int(config.get_text_config().vocab_size)
        self._offline = OfflineEngine(
            OfflineSettings(
                model=model,
                revision=revision,
                context=context_length(config, self.tokenizer),
                dtype=dtype,
                device=device,
                batch_size=batch_size,
                kv_cache_gib=_KV_CACHE_GIB,
                gpu_memory_utilization=_GPU_SHARE,
                enforce_eager=device == "cpu",
                decodes=True,
            )
        )
        self._text = LocalText(self.tokenizer, self._offline.context, self.settings)

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[Response]:
        """See `TextEngine.generate`. Raises UserError where the context has no room for a prompt."""
        prompts, stops = self._text.prompts(requests, decoding), self._text.stops(requests)
        settings = self._text.sampling(requests, decoding)
        ends = (self.tokenizer.eos_token_id, *settings.stop_tokens)
        asked = requests_for(prompts, settings, ends, self._vocabulary, stops.strings)
        outputs = [output.outputs[0] for output in self._offline.generate(asked.prompts, asked.parameters)]
        return [response(each.token_ids, each.token_ids[-1] in ends, stops) for each in outputs]

    def describe(self) -> dict[str, Any]:
        """See `TextEngine.describe`."""
        return {"engine": "vllm", "dtype": self._dtype}

    def cut_prompts(self, prompts: Sequence[Prompt], decoding: Decoding) -> int:
        """See `TextEngine.cut_prompts`."""
        return self._text.cut_prompts(prompts, decoding)

    def close(self) -> None:
        """See `TextEngine.close`."""
        self._offline.close()


def _about(model: str, revision: str | None) -> tuple[Any, Any, ModelSettings]:
    """The model's tokenizer, configuration and own settings, without its weights."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        config = AutoConfig.from_pretrained(model, revision=revision)
    except Exception as error:
        # transformers and the hub client raise many kinds: offline, no such id, broken files.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"model {model}: cannot be loaded: {first}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"model {model}: its tokenizer has no end-of-sequence token, so responses could never end."
        )
    try:
        generation = GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:
        # A model without the file has the settings of its configuration.
        generation = GenerationConfig.from_model_config(config)
    return tokenizer, config, settings_in(generation)

"""vLLM's offline engine in this process: start, sample, load weights, sleep, close."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from cppo_lab.errors import UserError, first_line
from cppo_lab.models.config import Dtype
from cppo_lab.rollouts.vllm.isolation import Isolation
from cppo_lab.rollouts.vllm.repacking import repack_for_cpu

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

# Chunked prefill rewinds a request's random generator, which is impossible on a CPU: prompts stay whole there.
_CPU_BATCHED_TOKENS = 8192
_GIB = 1 << 30


@dataclass(frozen=True)
class OfflineSettings:
    """What vLLM is started with. `model` is the folder or hub id of its first weights; `context` is in tokens.

    `decodes` loads the model's tokenizer, which stop strings need.
    """

    model: str
    context: int
    dtype: Dtype
    device: str
    batch_size: int
    kv_cache_gib: float
    gpu_memory_utilization: float
    enforce_eager: bool
    revision: str | None = None
    decodes: bool = False


class OfflineEngine:
    """One vLLM `LLM`. Whatever vLLM raises becomes a UserError of one sentence.

    On a GPU it sleeps between `rest` and the next `push`, so that the trainer can use the memory. A process can have
    one at a time: closing one ends what all in the process would share.
    """

    _alive: ClassVar[bool] = False

    def __init__(self, settings: OfflineSettings) -> None:
        if OfflineEngine._alive:
            raise RuntimeError("This process already has a vLLM engine; close it first.")
        self._isolation = Isolation()
        self._device = settings.device
        self._asleep = False
        self._llm: Any = None
        with self._calling(f"failed to start with {settings.model}"):
            self._llm = _start(settings)
            config = self._llm.llm_engine.vllm_config
            self.context: int = config.model_config.max_model_len
            self.block_size: int = config.cache_config.block_size
            OfflineEngine._alive = True

    @contextmanager
    def _calling(self, what_failed: str) -> Iterator[None]:
        """The context of every call into vLLM; its exceptions become UserErrors."""
        # The sampler compiles a helper at its first use: twenty seconds on a CPU, to save microseconds.
        compiling = torch._dynamo.config.patch(disable=self._device == "cpu")
        with self._isolation.inside(), compiling:
            try:
                yield
            except UserError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)[:300]}"
                raise UserError(f"vLLM {what_failed} ({reason}).") from error

    def generate(
        self, prompts: Sequence[Sequence[int]], parameters: Sequence[SamplingParams]
    ) -> list[RequestOutput]:
        """vLLM's outputs for `prompts` (token ids), each sampled with its own parameters."""
        if self._asleep:
            raise RuntimeError("vLLM sleeps without weights; push them before sampling.")
        with self._calling("failed while sampling"):
            requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
            found: list[RequestOutput] = self._llm.generate(requests, list(parameters), use_tqdm=False)
            return found

    def push(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load all weights, by their names in a checkpoint, and drop the prefix cache of the old ones."""
        with self._calling("failed to load the new weights"):
            if self._asleep:
                self._llm.wake_up(tags=["weights"])
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
            self._llm.apply_model(repack_for_cpu)
            if self._asleep:
                self._llm.wake_up(tags=["kv_cache"])
                self._asleep = False
            if not self._llm.reset_prefix_cache():
                raise UserError(
                    "vLLM has unfinished requests, so it cannot drop the prefix cache of the old weights."
                )

    def rest(self) -> None:
        """Release a GPU's memory until the next `push`, which loads all weights anew."""
        if self._device == "cuda" and not self._asleep:
            with self._calling("failed to release its memory"):
                self._llm.sleep(level=2)
                self._asleep = True

    def close(self) -> None:
        """Shut vLLM down; a second call does nothing."""
        if self._llm is not None:
            OfflineEngine._alive = False
            with self._isolation.inside():
                self._llm.llm_engine.engine_core.shutdown()
                self._llm = None
                gc.collect()


def _start(settings: OfflineSettings) -> Any:
    from vllm import LLM
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    _check_platform(settings.device)
    options: dict[str, Any] = {"enable_sleep_mode": True} if settings.device == "cuda" else {}
    if settings.device == "cpu":
        options = {
            "kv_cache_memory_bytes": int(settings.kv_cache_gib * _GIB),
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(_CPU_BATCHED_TOKENS, settings.context),
        }
    try:
        return LLM(
            model=settings.model,
            revision=settings.revision,
            tokenizer_revision=settings.revision,
            dtype=settings.dtype,
            # As long as the model's context and the KV cache allow.
            max_model_len=-1,
            max_num_seqs=settings.batch_size,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            enforce_eager=settings.enforce_eager,
            max_logprobs=-1,
            logprobs_mode="processed_logprobs",
            # The lab decodes responses; vLLM needs the tokenizer only to find stop strings.
            skip_tokenizer_init=not settings.decodes,
            generation_config="vllm",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **options,
        )
    except BaseException:
        # A half-started engine does not release its memory by itself.
        cleanup_dist_env_and_memory()
        raise


def _check_platform(device: str) -> None:
    from vllm.platforms import current_platform

    if current_platform.device_type != device:
        raise UserError(
            f"device {device}: this build of vLLM is for {current_platform.device_type or 'no device found here'}; "
            "the trainer must be on the same device."
        )

"""The configuration of the vLLM engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field

from cppo_lab.fields import Positive
from cppo_lab.rollouts.engine_config import EngineConfig, engines

if TYPE_CHECKING:
    from cppo_lab.models.config import Dtype, ModelConfig
    from cppo_lab.models.loading import ModelSource, Policy
    from cppo_lab.rollouts.rollout import RolloutEngine
    from cppo_lab.rollouts.serving import ServedModel
    from cppo_lab.rollouts.vllm.offline import OfflineSettings

# What vLLM takes on a CPU before any cache: its code and its compiled kernels.
_PROCESS_BYTES = 400 << 20
_EVALUATION_GPU_SHARE = 0.9
_EVALUATION_CACHE_GIB = 1.0


@engines.register("vllm", about="vLLM's offline engine, in the training process")
class VllmConfig(EngineConfig):
    """vLLM in the training process. `weights` is what its copy of the policy is held and computed with in.

    `kv_cache_gib` is the size of its KV cache on a CPU; on a GPU, `gpu_memory_utilization` is its share of the memory.
    """

    frees_gpu_memory: ClassVar[bool] = True

    kind: Literal["vllm"] = "vllm"
    weights: Literal["same", "bfloat16"]
    top_p: Annotated[float, Field(gt=0, le=1)]
    kv_cache_gib: Positive
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)]
    enforce_eager: bool | None

    @classmethod
    def for_evaluation(cls, batch_size: int) -> Self:
        """See `EngineConfig.for_evaluation`."""
        return cls(
            weights="same",
            batch_size=batch_size,
            top_p=1.0,
            kv_cache_gib=_EVALUATION_CACHE_GIB,
            gpu_memory_utilization=_EVALUATION_GPU_SHARE,
            enforce_eager=None,
        )

    @classmethod
    def check_installed(cls, key: str) -> None:
        """See `EngineConfig.check_installed`; versions that the lab does not know are refused too."""
        from cppo_lab.rollouts.vllm.installation import require_vllm

        require_vllm(key)

    def check(self, model: ModelConfig, device: str) -> None:
        """See `EngineConfig.check`; a hub model is checked when it is loaded."""
        from cppo_lab.rollouts.vllm.support import check_run

        super().check(model, device)
        check_run(model, device, self.enforce_eager)

    def build(self, policy: Policy, source: ModelSource) -> RolloutEngine:
        """See `EngineConfig.build`."""
        from cppo_lab.models.context import context_length
        from cppo_lab.rollouts.vllm.engine import VllmEngine
        from cppo_lab.rollouts.vllm.support import check_served

        check_served(f"model {source.path}", policy.network.config.to_dict(), source.device)
        dtype: Dtype = policy.dtype if self.is_exact else "bfloat16"
        context = context_length(policy.network.config, policy.tokenizer)
        return VllmEngine(policy, self.offline_settings(source, context, dtype))

    def serve(self, source: ModelSource, dtype: Dtype) -> ServedModel:
        """See `EngineConfig.serve`; vLLM alone reads the weights."""
        from cppo_lab.rollouts.vllm.served import serve

        return serve(self, source, dtype)

    def offline_settings(
        self,
        source: ModelSource,
        context: int,
        dtype: Dtype,
        decodes: bool = False,
    ) -> OfflineSettings:
        """What vLLM is started with, for a model with a context of so many tokens."""
        from cppo_lab.rollouts.vllm.offline import OfflineSettings

        return OfflineSettings(
            model=source.path,
            revision=source.revision,
            context=context,
            dtype=dtype,
            device=source.device,
            batch_size=self.batch_size,
            kv_cache_gib=self.kv_cache_gib,
            gpu_memory_utilization=self.gpu_memory_utilization,
            enforce_eager=source.device == "cpu" if self.enforce_eager is None else self.enforce_eager,
            decodes=decodes,
        )

    @property
    def sampling_top_p(self) -> float:
        """See `EngineConfig.sampling_top_p`."""
        return self.top_p

    @property
    def gpu_memory_share(self) -> float:
        """See `EngineConfig.gpu_memory_share`."""
        return self.gpu_memory_utilization

    @property
    def reserved_bytes(self) -> int:
        """See `EngineConfig.reserved_bytes`."""
        return _PROCESS_BYTES + int(self.kv_cache_gib * (1 << 30))

    @property
    def speed_key(self) -> list[str]:
        """See `EngineConfig.speed_key`."""
        return [self.kind, self.weights, str(self.enforce_eager)]

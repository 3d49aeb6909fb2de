"""The configuration of the native engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from cppo_lab.rollouts.engine_config import EngineConfig, engines

if TYPE_CHECKING:
    from cppo_lab.models.loading import ModelSource, Policy
    from cppo_lab.rollouts.rollout import RolloutEngine


@engines.register("native", about="the lab's batched sampler with a KV cache, in the training process")
class NativeConfig(EngineConfig):
    """The lab's own engine."""

    gives_entropy: ClassVar[bool] = True

    kind: Literal["native"] = "native"

    def build(self, policy: Policy, source: ModelSource) -> RolloutEngine:
        """See `EngineConfig.build`; the engine is on the policy's device."""
        from cppo_lab.rollouts.native import NativeEngine

        # A policy that computes in bfloat16 is sampled from in bfloat16.
        weights = "bfloat16" if self.is_exact and policy.dtype == "bfloat16" else self.weights
        return NativeEngine(
            policy.network,
            pad_token=policy.pad_token,
            eos_token=policy.eos_token,
            weights=weights,
            batch_size=self.batch_size,
        )

    @property
    def speed_key(self) -> str:
        """See `EngineConfig.speed_key`."""
        return self.weights

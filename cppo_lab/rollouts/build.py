"""From a run's configuration to its engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from cppo_lab.config.identity import resolved_device
from cppo_lab.config.schema import RunConfig, VllmEngine
from cppo_lab.models.loading import Policy
from cppo_lab.rollouts.formats import WeightFormat
from cppo_lab.rollouts.native import NativeEngine
from cppo_lab.rollouts.rollout import RolloutEngine


@contextmanager
def engines(config: RunConfig, policy: Policy, path: str) -> Iterator[tuple[RolloutEngine, RolloutEngine]]:
    """The engine that samples rollouts and the one that policies are judged with; both are closed on leaving.

    A policy is judged at full precision, whatever the rollouts were sampled with. `path` is the model folder, or hub
    id, of the starting policy.
    """
    with ExitStack() as held:
        engine = held.enter_context(closing(_rollout_engine(config, policy, path)))
        if config.engine.weights == "same":
            yield engine, engine
        else:
            yield engine, held.enter_context(closing(_native_engine(config, policy, "same")))


def _rollout_engine(config: RunConfig, policy: Policy, path: str) -> RolloutEngine:
    if isinstance(config.engine, VllmEngine):
        return _vllm_engine(config, config.engine, policy, path)
    return _native_engine(config, policy, config.engine.weights)


def _native_engine(config: RunConfig, policy: Policy, weights: WeightFormat) -> NativeEngine:
    return NativeEngine(
        policy.network,
        pad_token=policy.pad_token,
        eos_token=policy.eos_token,
        # The same as the trainer's: a policy that computes in bfloat16 is sampled from in bfloat16.
        weights="bfloat16" if weights == "same" and policy.dtype == "bfloat16" else weights,
        batch_size=config.engine.batch_size,
    )


def _vllm_engine(config: RunConfig, engine: VllmEngine, policy: Policy, path: str) -> RolloutEngine:
    from cppo_lab.models.context import context_length
    from cppo_lab.rollouts.vllm.engine import VllmEngine as Engine
    from cppo_lab.rollouts.vllm.offline import OfflineSettings
    from cppo_lab.rollouts.vllm.support import check_served

    device = resolved_device(config.trainer.device)
    check_served(f"model {path}", policy.network.config.to_dict(), device)
    settings = OfflineSettings(
        model=path,
        revision=getattr(config.model, "revision", None),
        context=context_length(policy.network.config, policy.tokenizer),
        dtype="float32" if engine.weights == "same" and policy.dtype == "float32" else "bfloat16",
        device=device,
        batch_size=engine.batch_size,
        kv_cache_gib=engine.kv_cache_gib,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        enforce_eager=device == "cpu" if engine.enforce_eager is None else engine.enforce_eager,
    )
    return Engine(policy, settings)

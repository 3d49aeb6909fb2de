"""The engines of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from cppo_lab.models.loading import ModelSource, Policy
from cppo_lab.rollouts.engine_config import EngineConfig
from cppo_lab.rollouts.native_config import NativeConfig
from cppo_lab.rollouts.rollout import RolloutEngine


@contextmanager
def open_engines(
    config: EngineConfig, policy: Policy, source: ModelSource
) -> Iterator[tuple[RolloutEngine, RolloutEngine]]:
    """The rollout engine and the evaluation engine, both closed on leaving.

    Evaluation samples from the policy as the trainer computes it: with the rollout engine where that does so too,
    else with a native one. `source` is where the starting policy was loaded from.
    """
    with ExitStack() as stack:
        engine = stack.enter_context(closing(config.build(policy, source)))
        if config.is_exact:
            yield engine, engine
        else:
            exact = NativeConfig(weights="same", batch_size=config.batch_size)
            yield engine, stack.enter_context(closing(exact.build(policy, source)))

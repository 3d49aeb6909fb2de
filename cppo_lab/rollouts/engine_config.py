"""The registry of rollout engines, and what an engine's configuration group tells the lab. Does not import torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from cppo_lab.fields import Count, Group
from cppo_lab.registry import Registry

if TYPE_CHECKING:
    from cppo_lab.models.config import Dtype, ModelConfig
    from cppo_lab.models.loading import ModelSource, Policy
    from cppo_lab.rollouts.rollout import RolloutEngine
    from cppo_lab.rollouts.serving import ServedModel

WeightFormat = Literal["same", "bfloat16", "int8", "int4", "int3"]
"""How an engine may hold its copy of the weights; `same` is the dtype that the policy computes in."""


class EngineConfig(Group, ABC):
    """The configuration group of an engine, and all that the lab asks of the engine.

    Register a subclass with `@engines.register(NAME, about=...)`, give its `kind` the default NAME, and name its keys
    in `conf/engine/NAME.yaml`. Keys added later need a default, so that the identities of earlier runs stay.
    `batch_size` is the number of responses that are sampled at once.
    """

    gives_topk: ClassVar[bool] = True
    """Whether rollouts carry the top-K log-probabilities of the rollout policy."""
    gives_distribution: ClassVar[bool] = True
    """Whether rollouts carry the rollout policy's whole distributions."""
    gives_entropy: ClassVar[bool] = False
    """Whether rollouts carry the entropy of the rollout policy over its whole vocabulary."""
    frees_gpu_memory: ClassVar[bool] = False
    """Whether `RolloutEngine.rest` gives the GPU memory of the engine's weights back."""

    kind: str
    weights: WeightFormat
    batch_size: Count

    @abstractmethod
    def build(self, policy: Policy, source: ModelSource) -> RolloutEngine:
        """A running engine with the policy's weights, of which it keeps its own copy.

        `source` says where the starting policy was loaded from, and the device to sample on.
        """

    @classmethod
    def for_evaluation(cls, batch_size: int) -> Self:
        """The configuration with which `cppo-lab eval` samples: weights as they are, the device to itself.

        A subclass whose further keys have no defaults must override this.
        """
        return cls.model_validate({"weights": "same", "batch_size": batch_size})

    @classmethod
    def check_installed(cls, key: str) -> None:
        """Raise UserError, naming the setting `key`, where a package that the engine needs is not installed."""
        return

    def check(self, model: ModelConfig, device: str) -> None:
        """Raise UserError, before any work starts, where the engine cannot sample from `model` on `device`."""
        self.check_installed(f"engine.kind={self.kind}")

    def serve(self, source: ModelSource, dtype: Dtype) -> ServedModel:
        """A model to evaluate, loaded from `source` and computing in `dtype`. Raises UserError if it cannot be."""
        from cppo_lab.rollouts.serving import serve

        return serve(self, source, dtype)

    @property
    def is_exact(self) -> bool:
        """Whether the engine samples from the policy as the trainer computes it, up to rounding."""
        return self.weights == "same"

    @property
    def sampling_top_p(self) -> float:
        """The share of probability that rollouts are sampled from (nucleus sampling); 1 is the policy itself."""
        return 1.0

    @property
    def gpu_memory_share(self) -> float | None:
        """The share of a GPU's memory that the engine takes while it samples; None if only what the batch needs."""
        return None

    @property
    def reserved_bytes(self) -> int:
        """Memory that the engine takes on a CPU besides its weights."""
        return 0

    @property
    def speed_key(self) -> str | list[str]:
        """What sets the speed of sampling: runs with equal values are taken to take equally long."""
        return [self.kind, self.weights]


engines: Registry[type[EngineConfig]] = Registry("engine.kind")

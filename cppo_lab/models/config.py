"""The configuration groups of models: one built from scratch, or a pretrained one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from cppo_lab.fields import Count, Group
from cppo_lab.models.shapes import ModelShape

Dtype = Literal["float32", "bfloat16"]
"""What forward and backward passes compute in."""


Implementation = Literal["transformers", "lab"]
"""Who computes a model: transformers, or the lab's own decoder, which is faster on a CPU."""


class ScratchModel(Group):
    """A randomly initialised Qwen3 model; with `experts`, a mixture of experts. Widths are in units."""

    is_pretrained: ClassVar[bool] = False
    dtype: ClassVar[Literal["float32"]] = "float32"
    revision: ClassVar[None] = None

    kind: Literal["scratch"]
    name: str
    width: Count
    layers: Count
    heads: Count
    kv_heads: Count
    # The sizes for which vLLM's CPU build has kernels: a model of the ladder must fit every engine.
    head_dim: Literal[32, 64, 80, 96, 112, 128]
    feed_forward: Count
    experts: Annotated[int, Field(ge=0)]
    experts_per_token: Annotated[int, Field(ge=0)]
    expert_feed_forward: Annotated[int, Field(ge=0)]
    context: Count
    vocabulary: Annotated[int, Field(ge=300)]
    implementation: Implementation = "transformers"

    @model_validator(mode="after")
    def _fits_together(self) -> ScratchModel:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads = {self.kv_heads}: must divide heads = {self.heads}")
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            raise ValueError(
                f"experts_per_token = {self.experts_per_token}: must be between 1 and experts = {self.experts}"
            )
        if self.experts and not self.expert_feed_forward:
            raise ValueError("expert_feed_forward = 0: must be at least 1 in a model with experts")
        if self.experts and self.implementation == "lab":
            raise ValueError("implementation = lab: computes models without experts alone; use transformers")
        return self

    def shape(self, vocabulary: int) -> ModelShape:
        """The model's sizes with a tokenizer of `vocabulary` tokens."""
        return ModelShape(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            feed_forward=self.feed_forward,
            vocabulary=vocabulary,
            is_tied=True,
            experts=self.experts,
            experts_per_token=self.experts_per_token,
            expert_feed_forward=self.expert_feed_forward,
        )


class PretrainedModel(Group):
    """A model of the Hugging Face hub (pin its revision), or a local folder in its format.

    `dtype` is that of forward and backward passes; weights, gradients and optimizer moments are float32.
    """

    is_pretrained: ClassVar[bool] = True

    kind: Literal["pretrained"]
    name: str
    path: str
    revision: str | None
    dtype: Dtype
    gradient_checkpointing: bool
    implementation: Implementation = "transformers"

    @model_validator(mode="after")
    def _fits_together(self) -> PretrainedModel:
        if self.implementation == "lab" and self.dtype != "float32":
            raise ValueError(f"dtype = {self.dtype}: must be float32 for model.implementation = lab")
        if self.implementation == "lab" and self.gradient_checkpointing:
            raise ValueError("gradient_checkpointing = true: must be false for model.implementation = lab")
        return self


ModelConfig = ScratchModel | PretrainedModel

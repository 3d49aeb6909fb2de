"""The configuration group `backend`. Depends on pydantic alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cppo_lab.fields import Count, Group, Positive


class NativeBackend(Group):
    """The lab's own process trains, on one device."""

    kind: Literal["native"] = "native"


class VerlBackend(Group):
    """Workers of verl on Ray train, driven by the lab's loop; for models that one device does not hold.

    That it is verl can change what a run computes, by rounding; the other keys say where and how. `startup_s` and
    `silence_s` are the longest that the run may take to begin, and to give a sign of life.
    """

    # Neutral is the other choice, so that runs have the identities that they had before there was one.
    kind: Annotated[Literal["verl"], Field(json_schema_extra={"neutral": "native"})] = "verl"
    device: Literal["cuda", "cpu"]
    nodes: Count
    gpus_per_node: Count
    workers: Count
    address: str | None
    python: str | None
    tensor_parallel: Count
    tokens_per_pass: Count | None
    offload: bool
    startup_s: Positive
    silence_s: Positive

    @model_validator(mode="after")
    def _fits_together(self) -> VerlBackend:
        if self.device == "cpu" and self.nodes > 1:
            raise ValueError(f"nodes = {self.nodes}: must be 1 for device = cpu; give workers instead")
        for name, shipped in (("gpus_per_node", 8), ("tokens_per_pass", 16384), ("offload", False)):
            given = getattr(self, name)
            if self.device == "cpu" and given != shipped:
                raise ValueError(f"{name} = {given}: only applies to device = cuda")
        if self.device == "cuda" and self.workers != 1:
            raise ValueError(
                f"workers = {self.workers}: only applies to device = cpu; give nodes and gpus_per_node"
            )
        if self.world_size % self.tensor_parallel:
            raise ValueError(
                f"tensor_parallel = {self.tensor_parallel}: must divide the run's {self.world_size} devices"
            )
        return self

    @property
    def world_size(self) -> int:
        """Devices that train: GPUs, or processes on a CPU."""
        return self.workers if self.device == "cpu" else self.nodes * self.gpus_per_node

    @property
    def per_node(self) -> int:
        """Devices of one node."""
        return self.workers if self.device == "cpu" else self.gpus_per_node


Backend = Annotated[NativeBackend | VerlBackend, Field(discriminator="kind")]

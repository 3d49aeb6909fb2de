"""Gates: what becomes of the gradient of a token outside the trust region."""

from __future__ import annotations

from typing import Annotated

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.rules import Rules

gates = Rules("trust_region.gate")


@gates.register("hard")
def hard(within: Tensor) -> Tensor:
    """Keep or drop."""
    return within


@gates.register("reflect", paper="arXiv:2604.18578")
def reflect(within: Tensor) -> Tensor:
    """Keep, or pull back: -1 outside (BPO)."""
    return 2 * within.to(torch.int8) - 1


@gates.register("inverse", paper="arXiv:2606.10968", needs=["violation"])
def inverse(violation: Tensor) -> Tensor:
    """min(1, 1/x) (Eq. 20)."""
    return 1 / violation.clamp(min=1)


@gates.register("sapo", paper="arXiv:2511.20347", needs=["violation"])
def sapo(
    violation: Tensor,
    *,
    gate_temperature: Annotated[float, Param(above=0, about="How fast the gate closes.")] = 1.0,
) -> Tensor:
    """4 s (1 - s) with s = sigmoid(gate_temperature (x - 1)) for x > 1: SAPO's weight read as a gate."""
    share = torch.sigmoid(gate_temperature * (violation.clamp(min=1) - 1))
    return 4 * share * (1 - share)

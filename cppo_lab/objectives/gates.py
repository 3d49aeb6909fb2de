"""Gates: what becomes of the gradient of a token outside the trust region."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.rules import Rules

gates = Rules("trust_region.gate")


@gates.register("hard", about="keep or drop")
def hard(within: Tensor) -> Tensor:
    """1 inside, 0 outside; `within` is bool of any shape."""
    return within


@gates.register("inverse", about="min(1, 1/x) (Eq. 20)", paper="arXiv:2606.10968", needs=["violation"])
def inverse(violation: Tensor) -> Tensor:
    """1 inside, where x is at most 1, and 1/x outside."""
    return 1 / violation.clamp(min=1)


@gates.register(
    "sapo",
    about="4 s (1 - s) with s = sigmoid(gate_temperature (x - 1)) for x > 1: SAPO's weight read as a gate",
    paper="arXiv:2511.20347",
    needs=["violation"],
)
def sapo(
    violation: Tensor,
    *,
    gate_temperature: Annotated[float, Param(above=0, about="How fast the gate closes.")] = 1.0,
) -> Tensor:
    """1 inside, and a bell's side outside."""
    share = torch.sigmoid(gate_temperature * (violation.clamp(min=1) - 1))
    return 4 * share * (1 - share)

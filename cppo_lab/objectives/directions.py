"""Directions: which tokens a threshold may drop, by where their update takes the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cppo_lab.lazy_torch import Tensor
from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.divergences import DivergenceInputs, DivergenceSpec
from cppo_lab.objectives.log_ratios import moves_away
from cppo_lab.objectives.parameters import Param, fail
from cppo_lab.objectives.predicted_change import WEIGHTS, Tail, change, reduced_atoms, whole_atoms
from cppo_lab.objectives.rules import Rules


@dataclass(frozen=True)
class DirectionInputs:
    """What a direction may read; tensors [B, T], detached."""

    advantages: Tensor
    away: Tensor
    """bool: A (rho - 1) > 0."""
    mask: Tensor
    divergence: DivergenceSpec
    policies: DivergenceInputs
    """p is mu and q is pi, whatever the direction of the divergence."""
    vocabulary: int | None = None
    collision: Tensor | None = None


@dataclass(frozen=True)
class Direction:
    """The tokens that a threshold may drop, and why."""

    subject: Tensor
    """[B, T] bool, False outside the mask."""
    change: Tensor | None = None
    """[B, T] the predicted change, 0 outside the mask; None where none is predicted."""


directions = Rules("trust_region.direction")


@directions.register("ratio", paper="arXiv:2602.04879")
def by_ratio(at: DirectionInputs) -> Direction:
    """Tokens whose update moves the ratio away from 1: A (rho - 1) > 0."""
    return Direction(at.away)


def _check_predicted(algo: Coordinate) -> None:
    kind, tail = algo.divergence.kind, algo.trust_region.tail
    known = dict.fromkeys(name for name, _ in WEIGHTS)
    if kind not in known:
        rule = f"needs divergence.kind {', '.join(known)}; of {kind} no change is predicted"
        if kind in ("binary_tv", "binary_kl", "k2", "k3"):
            rule = f"needs divergence.kind {', '.join(known)}; for {kind} it would be the same test as ratio"
        raise fail("trust_region.direction", "predicted", rule)
    if algo.divergence.direction == "both":
        raise fail(
            "divergence.direction", "both", "must be forward or reverse for trust_region.direction predicted"
        )
    if kind.startswith("exact") and tail != "uniform":
        raise fail(
            "trust_region.tail", tail, f"must be uniform for divergence.kind {kind}, which has no tail"
        )


@directions.register("predicted", paper="arXiv:2607.10848", check=_check_predicted)
def by_predicted_change(
    at: DirectionInputs,
    *,
    tail: Annotated[
        Tail,
        Param(
            refuse_unread=True,
            about="The tokens outside the top K, of which only the sum is known: as equal ones, as one token, or by "
            "the sum of pi^2 over the vocabulary, which the trainer computes (the lab's own).",
        ),
    ] = "uniform",
) -> Direction:
    """Tokens whose update raises D to first order: A times the predicted change > 0."""
    spec, policies = at.divergence, at.policies
    if spec.reads("k"):
        atoms = reduced_atoms(policies, spec.k, spec.atoms, tail, at.vocabulary, at.collision)
    else:
        atoms = whole_atoms(policies)
    weights = WEIGHTS[spec.kind, spec.direction == "reverse"]
    found = change(weights, atoms, policies.p_logp.exp(), policies.q_logp.exp()).masked_fill(~at.mask, 0.0)
    return Direction(moves_away(at.advantages, found), found)


@directions.register("none")
def everything(at: DirectionInputs) -> Direction:
    """Every token, also one that moves toward the anchor or has A = 0."""
    return Direction(at.mask)

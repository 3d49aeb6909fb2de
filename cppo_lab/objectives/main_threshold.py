"""The main threshold of a method: what decides how far it lets the policy move, for tuning it beside a learning rate.

Which parameters those are is declared where the rules are (`Param.main_from`): the two bounds of a ratio clip together,
the threshold on a divergence, the bound of a truncated weight, the strength of a quadratic penalty, the temperatures of
a sigmoid of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from cppo_lab.objectives.coordinate import Coordinate
from cppo_lab.objectives.divergences import divergences
from cppo_lab.objectives.parameters import Parameter, join
from cppo_lab.objectives.spec import AlgoSpec


def main_threshold(algo: AlgoSpec) -> dict[str, float]:
    """The values of the main threshold by their keys under `algo`; empty for a method without one.

    That of the trust region where it has one, else that of the surrogate, else of the next coordinate that has one.
    """
    return {key: value for key, _, value in _declared(algo)}


def at_multiple(algo: AlgoSpec, multiple: float) -> dict[str, float]:
    """The main threshold at a multiple of its value in `algo`, above 1 for a wider region, within each key's range.

    A bound on the ratio is measured from 1: twice [0.8, 1.28] is [0.6, 1.56]. What tightens as it grows, as the weight
    of a penalty does, is divided.
    """
    found: dict[str, float] = {}
    for key, declared, value in _declared(algo):
        siblings = vars(getattr(algo, key.split(".")[0])) | {
            key.split(".")[1]: value for key, value in found.items()
        }
        start = declared.param.main_from
        assert start is not None, "only main parameters are listed"
        factor = 1 / multiple if declared.param.tightens else multiple
        scaled = float(f"{start + factor * (value - start):.6g}")
        low, high = declared.least(siblings), declared.param.at_most
        found[key] = min(max(scaled, -math.inf if low is None else low), math.inf if high is None else high)
    return found


def never_acts(algo: AlgoSpec, thresholds: Mapping[str, float]) -> bool:
    """Whether a threshold on the divergence is as large as the divergence can be, so that a wider one is the same."""
    largest = divergences[algo.divergence.kind].largest
    on_divergence = [value for key, value in thresholds.items() if key.startswith("trust_region.delta")]
    return bool(on_divergence) and min(on_divergence) >= largest


def _declared(algo: AlgoSpec) -> tuple[tuple[str, Parameter, float], ...]:
    coordinates = {"trust_region": algo.trust_region, "surrogate": algo.surrogate} | {
        name: value for name, value in vars(algo).items() if isinstance(value, Coordinate)
    }
    for path, coordinate in coordinates.items():
        found = tuple(_of(path, coordinate))
        if found:
            return found
    return ()


def _of(path: str, coordinate: Coordinate) -> Iterator[tuple[str, Parameter, float]]:
    for name, declared in coordinate.parameters().items():
        value = getattr(coordinate, name)
        if declared.param.main_from is None or value is None or not coordinate.reads(name):
            continue
        # An infinite bound, or one at the end of its range, is off; no multiple moves one at the value it starts from.
        fixed = (declared.least(vars(coordinate)), declared.param.main_from)
        if math.isfinite(value) and value not in fixed:
            yield join(path, name), declared, value

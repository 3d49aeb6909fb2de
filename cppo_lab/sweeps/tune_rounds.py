"""The rounds of a tuning study: which runs are wanted next, given the results so far.

Nothing is remembered between rounds. A study that was killed, and one that is read from its result file, go through the
same rounds again and come to the same points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cppo_lab.config.schema import RunConfig
from cppo_lab.objectives.main_threshold import at_multiple, never_acts
from cppo_lab.sweeps.samplers import next_setting
from cppo_lab.sweeps.trials import Panel, Place, Setting, Trials
from cppo_lab.sweeps.tune_choice import Scores, beyond, choose, edge_of, failures, mean_of, pruned
from cppo_lab.sweeps.tune_section import THRESHOLD, Prune, Range


@dataclass(frozen=True)
class Widening:
    """A value to add to the grid of a panel, because a method is best at its edge there."""

    panel: Panel
    key: str
    side: int
    value: float


@dataclass
class Study:
    """The trials of a study, what was widened, and the configuration of every place as the sweep sets it."""

    trials: Trials
    configs: Mapping[Place, RunConfig]
    widened: list[Widening] = field(default_factory=list)

    def widen(self, wanted: Widening) -> None:
        """Add the value to the grid, for every method of the panel."""
        self.trials.widened(wanted.panel, wanted.key, wanted.value)
        self.widened.append(wanted)

    def ask(self, scores: Mapping[Place, Scores]) -> bool:
        """Add the next setting of every place that has fewer than `trials`; False if none has."""
        section = self.trials.section
        if not section.is_adaptive:
            return False
        assert section.trials is not None, "checked where the section is read"
        added = False
        for place, settings in self.trials.settings.items():
            if len(settings) < section.trials:
                tried = [(setting, _mean(scores[place][setting])) for setting in settings]
                settings.append(
                    next_setting(section, place, tried, place.method in self.trials.without_threshold)
                )
                added = True
        return added

    def wanted_widenings(self, scores: Mapping[Place, Scores]) -> list[Widening]:
        """The values to add, one for each edge of a panel's grid at which a method is best, up to the limit."""
        found: dict[tuple[Panel, str, int], Widening] = {}
        for place, key, side in self.edges(scores):
            done = [
                each for each in self.widened if (each.panel, each.key, each.side) == (place.panel, key, side)
            ]
            if self.trials.section.sampler == "grid" and len(done) < self.trials.section.widen:
                value = beyond(self.trials.values[place.panel][key], side)
                found[place.panel, key, side] = Widening(place.panel, key, side, value)
        return list(found.values())

    def edges(self, scores: Mapping[Place, Scores]) -> list[tuple[Place, str, int]]:
        """Where a method's best setting is at the lowest (-1) or highest (1) value of a key that was tried."""
        found = []
        for place, of_place in scores.items():
            for key, value in choose(of_place):
                side = self._edge(place, key, value)
                if side:
                    found.append((place, key, side))
        return found

    def _edge(self, place: Place, key: str, value: float) -> int:
        values = self.trials.section.space.get(key) if self.trials.section.space else None
        if isinstance(values, Range) and self.trials.section.sampler != "grid":
            return _near_end(values, value)
        side = edge_of([v for setting in self.trials.settings[place] for k, v in setting if k == key], value)
        # A threshold that the divergence cannot exceed has no wider one.
        algo = self.configs[place].algo
        bounded = key == THRESHOLD and side > 0 and never_acts(algo, at_multiple(algo, value))
        return 0 if bounded else side


def _near_end(values: Range, value: float) -> int:
    """Whether a drawn value lies in the lowest or highest twentieth of its range."""
    low, high, at = values.low, values.high, value
    if values.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    share = (at - low) / (high - low)
    return -1 if share < 0.05 else int(share > 0.95)


def seeds_wanted(
    settings: Sequence[Setting], scores: Scores, seeds: Sequence[str], prune: Prune | None
) -> dict[Setting, int]:
    """How many of the seeds, in their order, each setting is to be run on, by the results so far."""
    if prune is None:
        return dict.fromkeys(settings, len(seeds))
    wanted: dict[Setting, int] = {}
    alive = list(settings)
    for end in range(prune.every, len(seeds), prune.every):
        block = seeds[:end]
        if any(seed not in scores.get(setting, {}) for setting in alive for seed in block):
            return wanted | dict.fromkeys(alive, end)
        known = {setting: {seed: scores[setting][seed] for seed in block} for setting in alive}
        dropped = pruned(known, prune)
        wanted |= dict.fromkeys(dropped, end)
        alive = [setting for setting in alive if setting not in dropped]
    return wanted | dict.fromkeys(alive, len(seeds))


def _mean(by_seed: Mapping[str, float]) -> float:
    """What a sampler is told: the mean, or the lowest accuracy there is for a setting with a failed run."""
    return 0.0 if failures(by_seed) else mean_of(list(by_seed.values())).value

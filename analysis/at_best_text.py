"""The verdict of a study over the learning rate: each method at its best against no rule at its best, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cppo_lab.analysis.claims import MARGIN
from cppo_lab.analysis.contrasts import Contrast, adjusted
from cppo_lab.analysis.controls import AT_BEST, Control
from cppo_lab.analysis.formatting import listed, percent, plural, points, points_range, size_in_points, tidy
from cppo_lab.analysis.grids import RATE, value_text
from cppo_lab.analysis.grouping import short_names
from cppo_lab.analysis.step_size_text import PLAIN
from cppo_lab.analysis.summary import MethodResult
from cppo_lab.analysis.verdict_text import seen_in_words

FEWEST_SEEDS = 4
"""Below, the half of the seeds that chooses a setting is a single seed."""


@dataclass(frozen=True)
class Regime:
    """The methods of one regime, each against plain policy gradient, and the results of its panels at single settings.

    tuned: the axes on which a method has a best setting.
    """

    controls: tuple[Control, ...]
    results: tuple[MethodResult, ...]
    tuned: tuple[str, ...]

    @property
    def baseline(self) -> str:
        """The name of plain policy gradient."""
        return self.controls[0].baseline

    @property
    def methods(self) -> tuple[str, ...]:
        """Plain policy gradient, and the others."""
        return (self.baseline, *(control.method for control in self.controls))

    @property
    def noun(self) -> str:
        """What is chosen for each method."""
        return "learning rate" if self.tuned == (RATE,) else "setting"

    def of(self, method: str) -> list[MethodResult]:
        """The results of a method that has runs."""
        return [result for result in self.results if result.group.method == method and result.n]

    def highest(self, method: str) -> tuple[str, float] | None:
        """The setting of the highest mean final accuracy in words, and that accuracy; None without runs."""
        seen = [(each.final.mean, self.setting(each)) for each in self.of(method) if each.final]
        best = max(seen, key=lambda pair: pair[0], default=None)
        return (best[1], best[0]) if best else None

    def setting(self, result: MethodResult) -> str:
        """`lr=1e-4`, with the other tuned axes if there are any."""
        values, short = dict(result.group.values), short_names(self.tuned)
        return ", ".join(f"{short[axis]}={tidy(values[axis])}" for axis in self.tuned if axis in values)


def at_best_verdict(regime: Regime) -> list[str]:
    """Sentences for one regime, the most important first."""
    return [
        *_at_best(regime),
        *_beyond_controls(regime.controls),
        *_at_one_rate(regime),
        _collapses(regime),
    ]


def _at_best(regime: Regime) -> list[str]:
    found = [control.controls[AT_BEST] for control in regime.controls]
    seeds = max(each.n for each in found)
    if not seeds:
        return [
            f"A single seed cannot both choose each method's {regime.noun} and judge it, so there is no verdict on "
            f"each method at its best. {_observed(regime)}"
        ]
    start = f"With each method at its best {regime.noun}"
    base = f"{PLAIN} ({regime.baseline})"
    sentences = [
        f"{start}, {each.treatment} ended {size_in_points(each.estimate.mean)} points {side} {base} "
        f"({points_range(each.estimate)}, n = {each.n})."
        for direction, side in (("higher", "above"), ("lower", "below"))
        for each in found
        if each.verdict == direction and each.estimate is not None
    ]
    seen = seen_in_words if seeds >= FEWEST_SEEDS else _seen_briefly
    told = "; ".join(f"{each.treatment} ({seen(each)})" for each in found if not each.resolved)
    if not sentences:
        sentences = [f"{start}, no difference from {base} is resolved: {told}."]
    elif told:
        sentences.append(f"Inconclusive at their best: {told}.")
    if seeds < FEWEST_SEEDS:
        sentences.append(
            f"With {plural(seeds, 'seed')}, a single seed chooses each {regime.noun}: too few for a verdict unless the "
            f"difference is very large. {_observed(regime)}"
        )
    return sentences


def _seen_briefly(contrast: Contrast) -> str:
    """The difference without the seeds that it takes, which two or three seeds cannot tell."""
    seen = contrast.estimate
    return f"{points(seen.mean)} points, n = {contrast.n}" if seen else "too few seeds"


def _observed(regime: Regime) -> str:
    """The highest mean of every method, which is too high, and where it is."""
    told = [
        f"{method} {percent(best[1])} ({best[0]})"
        for method in regime.methods
        if (best := regime.highest(method)) is not None
    ]
    if not told:
        return ""
    return f"The highest mean of each, on these same seeds and so somewhat too high: {listed(told)}."


def _beyond_controls(controls: Sequence[Control]) -> list[str]:
    """Where a method is above no rule at its best, but not above every control."""
    told = [
        f"{control.method} ({points(control.credited.mean)} points)"
        for control in controls
        if control.credited is not None
        and control.controls[AT_BEST].verdict == "higher"
        and control.verdict != "higher"
    ]
    return [f"Not resolved over every control of a smaller step: {listed(told)}."] if told else []


def _at_one_rate(regime: Regime) -> list[str]:
    """What a comparison at one rate would have said, and how plain policy gradient does there and at its best."""
    sentences = []
    best = regime.highest(regime.baseline)
    for rate in dict.fromkeys(control.rate for control in regime.controls if control.at_one is not None):
        at_one = [each.at_one for each in regime.controls if each.rate == rate and each.at_one is not None]
        at_rate = f"lr={value_text(rate)}"
        sentences.append(f"A comparison at {at_rate} alone would have {_found(adjusted(at_one))}.")
        there = [
            each.final.mean
            for each in regime.of(regime.baseline)
            if each.final and float(dict(each.group.values)[RATE]) == rate
        ]
        if there and best is not None and best[1] > max(there):
            sentences.append(
                f"At that rate {PLAIN} ended at {percent(max(there))}, against {percent(best[1])} at {best[0]}."
            )
            if _falls_behind(at_one) and _is_level(regime, *best):
                sentences.append(
                    f"In these runs, training without a rule falls behind at {at_rate} and not at {best[0]}: there, a "
                    "smaller step does what a trust region does."
                )
    return sentences


def _falls_behind(contrasts: Sequence[Contrast]) -> bool:
    """Whether every method is above plain policy gradient by more than counts as equal."""
    return all(each.estimate is not None and each.estimate.mean > MARGIN for each in contrasts)


def _is_level(regime: Regime, setting: str, accuracy: float) -> bool:
    """Whether no method is above plain policy gradient at its best setting by more than counts as equal."""
    others = [
        each.final.mean
        for control in regime.controls
        for each in regime.of(control.method)
        if each.final and regime.setting(each) == setting
    ]
    return bool(others) and max(others) - accuracy <= MARGIN


def _found(contrasts: Sequence[Contrast]) -> str:
    """`found grpo (+22.2 points) above plain policy gradient and been inconclusive on cispo (+3.6 points)`."""
    known = [(each, each.estimate.mean) for each in contrasts if each.estimate is not None]
    if not known:
        return "said nothing, as no seed has run there"
    if not any(each.resolved for each, _ in known):
        told = listed([f"{points(mean)} ({each.treatment})" for each, mean in known])
        return f"shown differences from {PLAIN} of {told} points, none of them resolved"

    def told_of(verdict: str) -> str:
        return listed(
            [
                f"{each.treatment} ({points(mean)} points)"
                for each, mean in known
                if (each.verdict if each.resolved else "") == verdict
            ]
        )

    sides = (("higher", "above"), ("lower", "below"))
    parts = [f"found {names} {side} {PLAIN}" for verdict, side in sides if (names := told_of(verdict))]
    if unresolved := told_of(""):
        parts.append(f"been inconclusive on {unresolved}")
    return listed(parts)


def _collapses(regime: Regime) -> str:
    """Which methods collapsed, and where."""
    told = []
    for method in regime.methods:
        fallen = [result for result in regime.of(method) if result.collapses]
        if fallen:
            places = listed(list(dict.fromkeys(map(regime.setting, fallen))))
            runs = plural(sum(result.n for result in fallen), "run")
            told.append(f"{method} in {sum(result.collapses for result in fallen)} of {runs} at {places}")
    if not told:
        return "No run collapsed below half of its starting accuracy."
    return f"Collapsed below half of the starting accuracy: {'; '.join(told)}."

"""The trials of a tuning study: which settings each method tries in each panel, and the runs that this makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from cppo_lab.config.seed_axes import is_seed_axis
from cppo_lab.errors import UserError, one_of
from cppo_lab.sweeps.expansion import Combination, axis_names
from cppo_lab.sweeps.sweep_file import SweepFile
from cppo_lab.sweeps.tune_section import THRESHOLD, Range, TuneSection

Setting = tuple[tuple[str, float], ...]
"""A value of every tuned key, in the order of the section."""
Panel = tuple[tuple[str, str], ...]
DIGITS = 3
"""Significant digits of values that are not from a list, so that a setting can be read and typed."""


@dataclass(frozen=True)
class Place:
    """A method in a panel: what gets a tuned point of its own. `panel` is the values of all axes that are not tuned."""

    panel: Panel
    method: str


@dataclass
class Trials:
    """The settings of every place so far; `values` are those of each key of a grid, by panel."""

    section: TuneSection
    settings: dict[Place, list[Setting]] = field(default_factory=dict)
    values: dict[Panel, dict[str, list[float]]] = field(default_factory=dict)
    without_threshold: frozenset[str] = frozenset()

    def keys(self, method: str) -> tuple[str, ...]:
        """The tuned keys that a method has."""
        lacks = method in self.without_threshold
        return tuple(key for key in self.section.keys if key != THRESHOLD or not lacks)

    def widened(self, panel: Panel, key: str, value: float) -> None:
        """Add a value to the grid of a panel, for every method alike: each gets as many further trials."""
        known = self.values[panel]
        others = [[(other, v) for v in known[other]] for other in self.section.keys if other != key]
        added = math.prod(map(len, others))
        known[key] = sorted([*known[key], value])
        for place, settings in self.settings.items():
            if place.panel != panel:
                continue
            if place.method in self.without_threshold:
                self._extend_without_threshold(settings, key, value, added)
                continue
            for combination in product(*others):
                found = dict(combination) | {key: value}
                settings.append(tuple((each, found[each]) for each in self.section.keys))

    def _extend_without_threshold(self, settings: list[Setting], key: str, value: float, added: int) -> None:
        first = _first(self.section)
        known = [dict(setting)[first] for setting in settings]
        new = [value] if key == first else []
        for each in filled([*known, *new], len(known) + added):
            if each not in known:
                settings.append(((first, each),))


def setting_text(setting: Setting) -> str:
    """`trainer.lr=0.0001 threshold=2`."""
    return " ".join(f"{key}={value:g}" for key, value in setting)


def tuned_axes(file: SweepFile, runs: Sequence[Combination]) -> list[str]:
    """The axes that make panels. Raises UserError for a section that names no axis of the sweep, or another's axis."""
    section = file.tune
    assert section is not None, "only studies are asked"
    axes = axis_names(file, runs)
    place = f"sweep {file.slug}: tune"
    for key in section.over:
        if key not in axes:
            raise one_of(f"{place}: over", key, axes)
    for key in section.space:
        if key in axes:
            raise UserError(
                f"{place}: space: {key}: is an axis of the sweep; name it in 'over', or leave it out there."
            )
    for axis in dict.fromkeys((*axes, "algo")):
        if any(run.value(axis) is None for run in runs):
            raise UserError(f"{place}: {axis}: must be set by every grid of the sweep, or by its overrides.")
    return [axis for axis in axes if axis not in (*section.keys, "algo") and not is_seed_axis(axis)]


def place_of(run: Combination, panel_axes: Sequence[str]) -> Place:
    """The method and panel of a run."""
    return Place(tuple((axis, run.value(axis) or "?") for axis in panel_axes), run.value("algo") or "?")


def setting_of(run: Combination, keys: Sequence[str]) -> Setting:
    """The values of a run on the tuned keys that it sets. Raises UserError for one that is no number."""
    found = []
    for key in keys:
        text = run.value(key)
        if text is None:
            continue
        try:
            found.append((key, float(text)))
        except ValueError as error:
            raise UserError(f"tune: {key}={text}: must be a number, to be tuned.") from error
    return tuple(found)


def without_threshold(section: TuneSection, methods: Iterable[str]) -> frozenset[str]:
    """The methods that have no main threshold, where one is tuned."""
    if THRESHOLD not in section.keys:
        return frozenset()
    from cppo_lab.objectives.main_threshold import main_threshold
    from cppo_lab.objectives.named import method, method_names

    known = set(method_names())
    return frozenset(name for name in methods if name in known and not main_threshold(method(name)))


def first_trials(file: SweepFile, runs: Sequence[Combination]) -> Trials:
    """The trials that are known before anything has run: a grid, random draws, or none (`is_adaptive`)."""
    section = file.tune
    assert section is not None, "only studies are asked"
    axes = tuned_axes(file, runs)
    places = list(dict.fromkeys(place_of(run, axes) for run in runs))
    trials = Trials(section, without_threshold=without_threshold(section, {place.method for place in places}))
    for place in places:
        if section.over:
            on_keys = [
                dict(setting_of(run, section.keys))
                for run in runs
                if place_of(run, axes).panel == place.panel
            ]
            values = {key: sorted({each[key] for each in on_keys}) for key in section.over}
        else:
            values = (
                {key: list(_listed(section, key)) for key in section.space}
                if section.sampler == "grid"
                else {}
            )
        trials.values[place.panel] = values
        trials.settings[place] = _of_place(trials, place)
    return trials


def _of_place(trials: Trials, place: Place) -> list[Setting]:
    section, values = trials.section, trials.values[place.panel]
    lacks_threshold = place.method in trials.without_threshold
    if section.is_adaptive:
        return []
    if section.sampler == "random":
        from cppo_lab.sweeps.samplers import random_settings

        return random_settings(section, lacks_threshold)
    whole = [
        tuple(zip(section.keys, each, strict=True)) for each in product(*(values[k] for k in section.keys))
    ]
    if section.trials is not None and len(whole) != section.trials:
        raise _wrong_number(section.trials, len(whole), 0)
    if not lacks_threshold:
        return whole
    first = _first(section)
    return [((first, value),) for value in filled(values[first], len(whole))]


def _first(section: TuneSection) -> str:
    """The key on which a method without a threshold spends all its trials."""
    return next(key for key in section.keys if key != THRESHOLD)


def _listed(section: TuneSection, key: str) -> Sequence[float]:
    """The values of a key in a grid of `trials` settings, ranges having as many as the lists leave."""
    values = section.space[key]
    if not isinstance(values, Range):
        return values
    listed = math.prod(len(each) for each in section.space.values() if not isinstance(each, Range))
    ranges = sum(isinstance(each, Range) for each in section.space.values())
    assert section.trials is not None, "checked where the section is read"
    count = round((section.trials / listed) ** (1 / ranges))
    if count < 2 or listed * count**ranges != section.trials:
        raise _wrong_number(section.trials, listed, ranges)
    shares = [place / (count - 1) for place in range(count)]
    return [rounded(between(values, share)) for share in shares]


def _wrong_number(trials: int, listed: int, ranges: int) -> UserError:
    times = [
        "",
        " times a number of values of the range, 2 or more",
        f" times a power of {ranges}, of 2 or more",
    ]
    return UserError(
        f"tune: trials={trials}: must be {listed}, the combinations of the lists{times[min(ranges, 2)]}."
    )


def between(values: Range, share: float) -> float:
    """The value at a share, 0 to 1, of a range."""
    if values.log:
        return values.low * (values.high / values.low) ** share
    return values.low + (values.high - values.low) * share


def rounded(value: float) -> float:
    """A value with DIGITS significant digits."""
    return float(f"{value:.{DIGITS}g}")


def filled(values: Iterable[float], count: int) -> list[float]:
    """`values` and further ones up to `count`, each halving the widest gap; of logarithms where all are positive."""
    known = sorted(set(values))
    log = known[0] > 0

    def gap(place: int) -> float:
        low, high = known[place], known[place + 1]
        return math.log(high / low) if log else high - low

    while len(known) < count and len(known) > 1:
        widest = max(range(len(known) - 1), key=lambda place: (round(gap(place), 9), -place))
        low, high = known[widest], known[widest + 1]
        middle = rounded(math.sqrt(low * high) if log else (low + high) / 2)
        if not low < middle < high:
            break
        known.insert(widest + 1, middle)
    return known


def with_setting(run: Combination, section: TuneSection, setting: Setting) -> Combination:
    """The run at another setting. A method without a threshold is put at 1, the published one."""
    kept = [text for text in run.overrides if text.partition("=")[0].lstrip("+") not in section.keys]
    values = {key: f"{value:g}" for key, value in setting}
    axes = {key: value for key, value in run.axes.items() if key not in section.keys}
    on_keys = {key: values.get(key, "1") for key in section.keys}
    return Combination((*kept, *(f"{key}={value}" for key, value in values.items())), {**axes, **on_keys})


def with_trials(file: SweepFile, runs: Sequence[Combination], trials: Trials) -> list[Combination]:
    """Every run of a study: each of the sweep's seeds and places at every setting that is tried there.

    A run of the sweep whose setting is tried stays as the sweep writes it.
    """
    section = trials.section
    axes = tuned_axes(file, runs)
    bases: dict[tuple[Place, tuple[str, ...]], Combination] = {}
    written: dict[tuple[Place, tuple[str, ...], Setting], Combination] = {}
    for run in runs:
        place, base = place_of(run, axes), with_setting(run, section, ())
        bases.setdefault((place, base.overrides), base)
        written[place, base.overrides, setting_of(run, trials.keys(place.method))] = run
    return [
        written.get((place, overrides, setting)) or with_setting(base, section, setting)
        for (place, overrides), base in bases.items()
        for setting in trials.settings.get(place, ())
    ]

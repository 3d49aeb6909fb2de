"""The `tune:` section of a sweep file: what is tuned, over which values, and with how many trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError, near_miss, one_of

THRESHOLD = "threshold"
"""A key of settings: multiples of each method's own published main threshold."""
SAMPLERS = ("grid", "random", "tpe", "gp")
WIDEN = 2
_KEYS = ("over", "trials", "sampler", "space", "seed", "widen", "prune", "published")


@dataclass(frozen=True)
class Range:
    """An interval, or its logarithm (`log`), to draw values from."""

    low: float
    high: float
    log: bool = False


Values = Range | tuple[float, ...]


@dataclass(frozen=True)
class Prune:
    """Racing: after every `every` seeds, settings surely worse than the best by more than `margin` are dropped."""

    every: int
    margin: float


@dataclass(frozen=True)
class TuneSection:
    """What a study tunes. `over` names axes that its sweep has; else each method gets `trials` settings of `space`.

    seed: of the sampler. widen: how many values at most are added at each end of a grid whose best value is its last.
    published: the values to report the regret of, where they are not those of the sweep's configuration.
    """

    over: tuple[str, ...] = ()
    space: Mapping[str, Values] = ()  # type: ignore[assignment]
    trials: int | None = None
    sampler: str = "grid"
    seed: int = 0
    widen: int = WIDEN
    prune: Prune | None = None
    published: Mapping[str, float] = ()  # type: ignore[assignment]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are tuned, in the order in which ties are decided."""
        return self.over or tuple(self.space)

    @property
    def is_adaptive(self) -> bool:
        """Whether a trial depends on the results of earlier ones."""
        return self.sampler in ("tpe", "gp")


def read_tune(path: Path, content: Any) -> TuneSection | None:
    """The section of a sweep file; None without one. Raises UserError for whatever is wrong with it."""
    if content is None:
        return None
    if not isinstance(content, dict):
        raise UserError(f"{path}: tune: must be a mapping, such as {{over: [trainer.lr]}}.")
    for key in content:
        if key not in _KEYS:
            raise UserError(
                f"{path}: tune: {key}: unknown key; allowed are {', '.join(_KEYS)}.{near_miss(str(key), _KEYS)}"
            )
    over, space = _over(path, content.get("over")), _space(path, content.get("space"))
    if bool(over) == bool(space):
        raise UserError(f"{path}: tune: needs either 'over', a list of the sweep's axes, or 'space'.")
    return TuneSection(
        over=over,
        space=space,
        **_sampling(path, content, space),
        seed=_whole(path, "seed", content.get("seed", 0), 0),
        widen=_whole(path, "widen", content.get("widen", WIDEN), 0),
        prune=_prune(path, content.get("prune")),
        published=_published(path, content.get("published"), over or tuple(space)),
    )


def _over(path: Path, given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not given or not all(isinstance(each, str) for each in given):
        raise UserError(f"{path}: tune: over={given}: must be a list of axes, such as [trainer.lr].")
    return tuple(given)


def _sampling(path: Path, content: Mapping[str, Any], space: Mapping[str, Values]) -> dict[str, Any]:
    sampler, trials = content.get("sampler", "grid"), content.get("trials")
    if sampler not in SAMPLERS:
        raise one_of(f"{path}: tune: sampler", str(sampler), SAMPLERS)
    if not space:
        for key in ("trials", "sampler"):
            if key in content:
                raise UserError(
                    f"{path}: tune: {key}={content[key]}: needs 'space'; 'over' tries every value."
                )
        return {}
    if trials is not None:
        trials = _whole(path, "trials", trials, 1)
    has_range = any(isinstance(values, Range) for values in space.values())
    if trials is None and (sampler != "grid" or has_range):
        raise UserError(
            f"{path}: tune: trials: must be given, the number of settings that each method tries."
        )
    return {"sampler": sampler, "trials": trials}


def _space(path: Path, given: Any) -> dict[str, Values]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not given:
        raise UserError(f"{path}: tune: space={given}: must be a mapping from keys to lists or ranges.")
    return {str(key): _values(f"{path}: tune: space: {key}", values) for key, values in given.items()}


def _values(place: str, given: Any) -> Values:
    if isinstance(given, list) and given and all(map(_is_number, given)):
        return tuple(sorted({float(each) for each in given}))
    if isinstance(given, dict) and {"low", "high"} <= set(given) <= {"low", "high", "log"}:
        low, high, log = given["low"], given["high"], given.get("log", False)
        if _is_number(low) and _is_number(high) and low < high and isinstance(log, bool):
            if log and low <= 0:
                raise UserError(f"{place}: low={low}: must be above 0 for log: true.")
            return Range(float(low), float(high), log)
    raise UserError(
        f"{place}={given}: must be a list of numbers, or a range such as {{low: 1.0e-5, high: 1.0e-3, log: true}}."
    )


def _prune(path: Path, given: Any) -> Prune | None:
    if given is None:
        return None
    if not isinstance(given, dict) or set(given) != {"every", "margin"}:
        raise UserError(f"{path}: tune: prune={given}: must be {{every: SEEDS, margin: ACCURACY}}.")
    # A spread needs two values, and an interval over two says next to nothing.
    every = _whole(path, "prune: every", given["every"], 2)
    if not _is_number(given["margin"]) or not 0 <= given["margin"] < 1:
        raise UserError(f"{path}: tune: prune: margin={given['margin']}: must be in [0, 1), an accuracy.")
    return Prune(every, float(given["margin"]))


def _published(path: Path, given: Any, keys: tuple[str, ...]) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(map(_is_number, given.values())):
        raise UserError(f"{path}: tune: published={given}: must be a mapping from tuned keys to numbers.")
    for key in given:
        if key not in keys:
            raise one_of(f"{path}: tune: published", str(key), keys)
    return {key: float(value) for key, value in given.items()}


def _whole(path: Path, key: str, value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise UserError(f"{path}: tune: {key}={value}: must be a whole number of at least {least}.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

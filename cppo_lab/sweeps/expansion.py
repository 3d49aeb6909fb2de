"""From the grids of a sweep file and the command line to the overrides of every run, in Hydra's grammar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from cppo_lab.config.overrides import parse
from cppo_lab.errors import UserError
from cppo_lab.sweeps.sweep_file import Grid, SweepFile


def hydra_settings(overrides: Sequence[str]) -> list[str]:
    """The overrides of Hydra's own settings: a launcher or a sweeper and its options."""
    return [o for o in overrides if o.lstrip("+~").startswith(("hydra/", "hydra."))]


def merged_grids(file: SweepFile, overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each grid that the command line leaves: those of the file, replaced by the command line's.

    An override of an axis keeps the grids that have its values, each with the values that it has: `model=m` keeps the
    grids of `m`. A value that no grid has goes where the others go, or else to every grid. Seeds keep all grids. If no
    grid has values of every such override, those that have the most are kept, provided that all else in them agrees.
    Raises UserError if it does not, and for a value that only excluded grids have.
    """
    asked = {key: _values(text) for text in overrides if _narrows(file, text) for key in [_key(text)]}
    taken = [{key: _taken(file, grid, key, values) for key, values in asked.items()} for grid in file.grids]
    had = [frozenset(key for key, values in each.items() if values) for each in taken]
    largest = [keys for keys in dict.fromkeys(had) if not any(keys < others for others in had)]
    kept = [[place for place, keys in enumerate(had) if keys == each] for each in largest]
    found, *others = [[_merged(file, file.grids[p], overrides, taken[p]) for p in places] for places in kept]
    for other in others:
        _refuse_differing(file, asked, found, other)
    _refuse_excluded(file, asked, largest[0], [taken[place] for place in kept[0]])
    return found


def _narrows(file: SweepFile, override: str) -> bool:
    """Whether an override of the command line selects among the grids."""
    (parsed,) = parse([override])
    key = parsed.get_key_element()
    is_axis = any(key in grid.axes for grid in file.grids)
    is_seed = key.split(".")[0] in ("seed", "seeds")
    return is_axis and not (is_seed or parsed.is_delete() or parsed.is_add())


def _taken(file: SweepFile, grid: Grid, key: str, asked: list[str]) -> list[str]:
    """Which of the values asked for on an axis a grid takes; one without the axis takes all of them."""

    def values(of: Grid) -> list[str]:
        return _values(f"{key}={of.axes[key]}") if key in of.axes else asked

    new = [value for value in asked if not any(value in values(each) for each in file.grids)]
    taken = [value for value in asked if value in values(grid) or value in new]
    return taken if taken != new or new == asked else []


def _refuse_differing(
    file: SweepFile,
    asked: Mapping[str, list[str]],
    found: Sequence[Sequence[str]],
    other: Sequence[Sequence[str]],
) -> None:
    one, another = ([values_set(grid) for grid in grids] for grids in (found, other))
    if {frozenset(grid.items()) for grid in one} == {frozenset(grid.items()) for grid in another}:
        return
    keys = sorted({key for grid in (*one, *another) for key in grid})
    differing = [
        key for key in keys if {grid.get(key) for grid in one} != {grid.get(key) for grid in another}
    ]
    raise UserError(
        f"sweep {file.slug}: {_as_text(asked)}: no grid of the file has all of these, and those that have some set "
        f"{', '.join(differing)} differently; give {' '.join(f'{key}=…' for key in differing)} as well."
    )


def _refuse_excluded(
    file: SweepFile,
    asked: Mapping[str, list[str]],
    had: Iterable[str],
    taken: Sequence[Mapping[str, list[str]]],
) -> None:
    for key in had:
        lost = [value for value in asked[key] if not any(value in grid[key] for grid in taken)]
        if lost:
            others = {other: values for other, values in asked.items() if other != key}
            raise UserError(
                f"sweep {file.slug}: {key}={','.join(lost)}: no grid of the file has it with {_as_text(others)}."
            )


def _as_text(asked: Mapping[str, list[str]]) -> str:
    return " ".join("=".join((key, ",".join(values))) for key, values in asked.items())


def _merged(
    file: SweepFile, grid: Grid, overrides: Sequence[str], taken: Mapping[str, list[str]]
) -> list[str]:
    """The overrides of one grid, replaced by the command line's, of which those of an axis have the values `taken`."""
    own = [*file.overrides, *grid.overrides, *(f"{key}={value}" for key, value in grid.axes.items())]
    merged = {_key(text): text for text in own}
    for text in overrides:
        key = _key(text)
        values = taken.get(key)
        merged[key] = f"{key}={','.join(values)}" if values and values != _values(text) else text
    return list(merged.values())


@cache
def _key(override: str) -> str:
    (parsed,) = parse([override])
    return str(parsed.get_key_element()).lstrip("+")


@cache
def _values(override: str) -> list[str]:
    """The values that an override gives its key, in order."""
    key, _, value = override.partition("=")
    return [axes.get(key, value) for _, axes in expand([override])]


def expand(overrides: Sequence[str]) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Every combination of the swept values, the last one varying fastest: (overrides, axis values) of each run.

    Raises UserError for an override whose values cannot be listed.
    """
    listed = []
    for override in parse(overrides):
        key = override.get_key_element()
        if override.is_sweep_override():
            _refuse_without_values(override)
            listed.append([(key, value, True) for value in override.sweep_string_iterator()])
        else:
            listed.append([(key, override.get_value_element_as_str(), False)])
    return [
        (
            tuple(f"{key}={value}" for key, value, _ in combination),
            {key.lstrip("+"): value for key, value, is_swept in combination if is_swept},
        )
        for combination in product(*listed)
    ]


def _refuse_without_values(override: Any) -> None:
    text = str(override.input_line)
    if not override.is_discrete_sweep():
        raise UserError(f"{text}: an interval has no list of values; use choice(…) or range(…).")
    if override.value_type.name == "GLOB_CHOICE_SWEEP":
        raise UserError(f"{text}: patterns are not expanded; list the values, as in algo=grpo,cppo.")
    if next(iter(override.sweep_string_iterator()), None) is None:
        raise UserError(f"{text}: has no values; a range excludes its end.")


@dataclass(frozen=True)
class Combination:
    """One run of a sweep before it is composed: its overrides, and its values on the axes that they set."""

    overrides: tuple[str, ...]
    axes: Mapping[str, str]

    def value(self, axis: str) -> str | None:
        """Its value on an axis, which another grid may vary; None if its overrides do not set it."""
        return self.axes.get(axis, values_set(self.overrides).get(axis))


def values_set(overrides: Sequence[str]) -> dict[str, str]:
    """The value that overrides set each key to, as text."""
    return {key: value for key, _, value in (override.lstrip("+").partition("=") for override in overrides)}


def combinations(file: SweepFile, overrides: Sequence[str]) -> list[Combination]:
    """Every run of a sweep's grids with the command line's overrides, grid by grid."""
    return [Combination(*found) for merged in merged_grids(file, overrides) for found in expand(merged)]


def axis_names(file: SweepFile, runs: Sequence[Combination]) -> list[str]:
    """The axes of a sweep: what its runs vary and, with several grids, what any grid lists among its axes."""
    declared = [key for grid in file.grids for key in grid.axes] if len(file.grids) > 1 else []
    return list(dict.fromkeys([*declared, *(key for run in runs for key in run.axes)]))

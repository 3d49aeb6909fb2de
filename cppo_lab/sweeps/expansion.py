"""From the grids of a sweep file and what the command line says to the overrides of every run, by Hydra's grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

from cppo_lab.config.overrides import parse
from cppo_lab.errors import UserError
from cppo_lab.sweeps.sweep_file import Grid, SweepFile


def hydra_settings(overrides: Sequence[str]) -> list[str]:
    """Those overrides that speak to Hydra itself (a launcher or a sweeper plug-in and its settings)."""
    return [o for o in overrides if o.lstrip("+~").startswith(("hydra/", "hydra."))]


def merged_grids(file: SweepFile, overrides: Sequence[str]) -> list[list[str]]:
    """What is set in each grid that the command line leaves: by the file, and in its place by the command line.

    `model=m` leaves the grids of `m`, with what they set for it, and `algo=ppo,cppo` gives each grid those of the two
    that it has. A value that no grid has goes where the others go, or else to every grid. Seeds choose none. Raises
    UserError where other grids would be left if the overrides stood in another order.
    """
    choosing = [place for place, override in enumerate(parse(overrides)) if _chooses(file, override)]
    left = _left_by(file, overrides, choosing)
    found = [_merged(file, grid, asked) for grid, asked in left]
    for order in permutations(choosing):
        if (otherwise := _left_by(file, overrides, order)) == left:
            continue
        other = [_merged(file, grid, asked) for grid, asked in otherwise]
        if _all_set(found) != _all_set(other):
            raise _ambiguous(file, [overrides[place] for place in choosing], found, other)
    return found


def _chooses(file: SweepFile, override: Any) -> bool:
    key = override.get_key_element()
    is_axis = any(key in grid.axes for grid in file.grids)
    is_seed = key.split(".")[0] in ("seed", "seeds")
    return is_axis and not (is_seed or override.is_delete() or override.is_add())


def _left_by(file: SweepFile, overrides: Sequence[str], order: Sequence[int]) -> list[tuple[Grid, list[str]]]:
    left = [(grid, list(overrides)) for grid in file.grids]
    for place in order:
        key = overrides[place].partition("=")[0]
        left = _narrowed(left, place, key, _values(overrides[place]))
    return left


def _all_set(grids: Sequence[Sequence[str]]) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(values_set(grid).items()) for grid in grids}


def _ambiguous(
    file: SweepFile, asked: Sequence[str], found: Sequence[Sequence[str]], other: Sequence[Sequence[str]]
) -> UserError:
    one, another = ([values_set(grid) for grid in grids] for grids in (found, other))
    keys = sorted({key for grid in (*one, *another) for key in grid})
    differing = [
        key for key in keys if {grid.get(key) for grid in one} != {grid.get(key) for grid in another}
    ]
    return UserError(
        f"sweep {file.slug}: {' '.join(asked)}: no grid of the file has all of these, and those that have some set "
        f"{', '.join(differing)} differently; give {' '.join(f'{key}=…' for key in differing)} as well."
    )


def _narrowed(
    left: Sequence[tuple[Grid, list[str]]], place: int, key: str, asked: Sequence[str]
) -> list[tuple[Grid, list[str]]]:
    """The grids that have any of the values asked for of an axis, each with what of them it is to take."""
    having = [_values(f"{key}={grid.axes[key]}") if key in grid.axes else list(asked) for grid, _ in left]
    new = [value for value in asked if not any(value in values for values in having)]
    kept = []
    for (grid, overrides), values in zip(left, having, strict=True):
        taken = [value for value in asked if value in values or value in new]
        if taken == list(asked):
            kept.append((grid, overrides))
        elif taken != new:
            narrowed = f"{key}={','.join(taken)}"
            kept.append((grid, [*overrides[:place], narrowed, *overrides[place + 1 :]]))
    return kept


@cache
def _values(override: str) -> list[str]:
    """The values that an override gives its key, one after the other."""
    key, _, value = override.partition("=")
    return [axes.get(key, value) for _, axes in expand([override])]


def _merged(file: SweepFile, grid: Grid, overrides: Sequence[str]) -> list[str]:
    """What the file says of one of its grids, with `overrides` in its place; a later one replaces."""
    merged: dict[str, str] = {}
    own = [*file.overrides, *grid.overrides, *(f"{key}={value}" for key, value in grid.axes.items())]
    for text, parsed in [
        *zip(own, parse(own), strict=True),
        *zip(overrides, parse(overrides), strict=True),
    ]:
        key = parsed.get_key_element().lstrip("+")
        merged[key] = text
    return list(merged.values())


def expand(overrides: Sequence[str]) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Every combination of the swept values, by Hydra's own sweeper: (overrides, axis values) of each run.

    Raises UserError where an override has no values that could be listed.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = parse(overrides)
    for override in parsed:
        _refuse_without_values(override)
    swept = {o.get_key_element() for o in parsed if o.is_sweep_override()}
    batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    combinations = []
    for combination in (c for batch in batches for c in batch):
        axes = {}
        for override in combination:
            key, _, value = override.partition("=")
            if key in swept:
                axes[key.lstrip("+")] = value
        combinations.append((tuple(combination), axes))
    return combinations


def _refuse_without_values(override: Any) -> None:
    if not override.is_sweep_override():
        return
    said = str(override.input_line)
    if not override.is_discrete_sweep():
        raise UserError(f"{said}: an interval has no values to list; give choice(…) or range(…).")
    if override.value_type.name == "GLOB_CHOICE_SWEEP":
        raise UserError(f"{said}: patterns are not expanded; list the values, as in algo=grpo,cppo.")
    if next(iter(override.sweep_string_iterator()), None) is None:
        raise UserError(f"{said}: holds no value; a range ends before its second number.")


@dataclass(frozen=True)
class Combination:
    """One run of a sweep before it is composed: its overrides, and where it stands on the axes that they tell of."""

    overrides: tuple[str, ...]
    axes: Mapping[str, str]

    def value(self, axis: str) -> str | None:
        """Its value on an axis, which another grid of the sweep may vary; None where its overrides do not say it."""
        return self.axes.get(axis, values_set(self.overrides).get(axis))


def values_set(overrides: Sequence[str]) -> dict[str, str]:
    """The text that overrides set each key to."""
    return {key: value for key, _, value in (override.lstrip("+").partition("=") for override in overrides)}


def combinations(file: SweepFile, overrides: Sequence[str]) -> list[Combination]:
    """Every run of a sweep, with the command line's overrides, grid by grid."""
    return [Combination(*found) for merged in merged_grids(file, overrides) for found in expand(merged)]


def axis_names(file: SweepFile, runs: Sequence[Combination]) -> list[str]:
    """The axes of a sweep: what its runs vary, and, with several grids, what a grid holds that another may vary."""
    declared = [key for grid in file.grids for key in grid.axes] if len(file.grids) > 1 else []
    return list(dict.fromkeys([*declared, *(key for run in runs for key in run.axes)]))

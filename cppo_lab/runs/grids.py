"""From the grids of a sweep file and what the command line says to the overrides of every run, by Hydra's grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.runs.sweep_files import Grid, SweepFile


def parse(overrides: Sequence[str]) -> Any:
    """Hydra's reading of overrides. Raises UserError for one that is not in its grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        reason = " ".join(str(error).split()).partition(" See https")[0]
        raise UserError(f"{error.override}: not an override in Hydra's grammar ({reason}).") from error


def hydra_settings(overrides: Sequence[str]) -> list[str]:
    """Those overrides that speak to Hydra itself (a launcher or a sweeper plug-in and its settings)."""
    return [o for o in overrides if o.lstrip("+~").startswith(("hydra/", "hydra."))]


def merged_overrides(file: SweepFile, grid: Grid, overrides: Sequence[str]) -> list[str]:
    """What the file says of one of its grids, with what the command line says in its place; a later one replaces."""
    merged: dict[str, str] = {}
    own = [*file.overrides, *grid.overrides, *(f"{key}={value}" for key, value in grid.axes.items())]
    for text, parsed in [
        *zip(own, parse(own), strict=True),
        *zip(overrides, parse(overrides), strict=True),
    ]:
        key = parsed.get_key_element().lstrip("+")
        merged[key] = text
    return list(merged.values())


def chosen_grids(file: SweepFile, overrides: Sequence[str]) -> tuple[Grid, ...]:
    """The grids of the file that have what the command line chooses: `model=m` leaves those of `m`, with what they set
    for it. All of them, where none has it; seeds choose none.
    """
    kept = file.grids
    for override in parse(overrides):
        key = override.get_key_element()
        is_axis = any(key in grid.axes for grid in kept)
        if not is_axis or key.split(".")[0] in ("seed", "seeds") or override.is_delete() or override.is_add():
            continue
        asked = {values[key] for _, values in _swept(str(override.input_line))}
        having = tuple(
            grid
            for grid in kept
            if key not in grid.axes
            or asked & {values[key] for _, values in _swept(f"{key}={grid.axes[key]}")}
        )
        kept = having or kept
    return kept


def _swept(override: str) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """`expand` of one override, with its value where it has only one."""
    key, _, value = override.partition("=")
    return [(combination, axes or {key: value}) for combination, axes in expand([override])]


def expand(overrides: Sequence[str]) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Every combination of the swept values, by Hydra's own sweeper: (overrides, axis values) of each run."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = parse(overrides)
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


@dataclass(frozen=True)
class Combination:
    """One run of a sweep before it is composed: its overrides, and where it stands on the axes that they tell of."""

    overrides: tuple[str, ...]
    axes: Mapping[str, str]

    def value(self, axis: str) -> str | None:
        """Its value on an axis, which another grid of the sweep may vary; None where its overrides do not say it."""
        set_to = {
            override.lstrip("+").partition("=")[0]: override.partition("=")[2] for override in self.overrides
        }
        return self.axes.get(axis, set_to.get(axis))


def combinations(file: SweepFile, overrides: Sequence[str]) -> list[Combination]:
    """Every run of a sweep, with the command line's overrides, grid by grid."""
    return [
        Combination(*found)
        for grid in chosen_grids(file, overrides)
        for found in expand(merged_overrides(file, grid, overrides))
    ]


def axis_names(file: SweepFile, runs: Sequence[Combination]) -> list[str]:
    """The axes of a sweep: what its runs vary, and, with several grids, what a grid holds that another may vary."""
    declared = [key for grid in file.grids for key in grid.axes] if len(file.grids) > 1 else []
    return list(dict.fromkeys([*declared, *(key for run in runs for key in run.axes)]))

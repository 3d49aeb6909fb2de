"""A planned sweep whose claims and baseline are checked, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cppo_lab.sweeps.adhoc import Naming
from cppo_lab.sweeps.sweep import Sweep, find_sweep


def checked_sweep(
    name: str, overrides: Sequence[str], config_dir: Path | None, naming: Naming | None = None
) -> tuple[Sweep, list[list[str]]]:
    """`find_sweep`. Raises UserError as well for a figure, claims or a baseline that the analysis does not know."""
    from cppo_lab.analysis.figures.registry import check_figure

    sweep, grids = find_sweep(name, overrides, config_dir, naming)
    check_figure(name, sweep.file.figure)
    if sweep.file.claims or sweep.file.baseline is not None:
        from cppo_lab.analysis.claims import read_claims
        from cppo_lab.analysis.reproductions.planned import check_baseline

        read_claims(name, sweep.file.claims)
        check_baseline(name, sweep)
    return sweep, grids

"""The sweep that a command is given, all of its file checked before anything is done for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cppo_lab.sweeps.sweep import Sweep, find_sweep


def asked_sweep(
    name: str, overrides: Sequence[str], config_dir: Path | None
) -> tuple[Sweep, list[list[str]]]:
    """`find_sweep`. Raises UserError for claims or a baseline, too, that the analysis could not make anything of."""
    sweep, merged = find_sweep(name, overrides, config_dir)
    if sweep.file.claims or sweep.file.baseline is not None:
        from cppo_lab.analysis.claims import read_claims
        from cppo_lab.analysis.reproductions.planned import check_baseline

        read_claims(name, sweep.file.claims)
        check_baseline(name, sweep)
    return sweep, merged

"""Hydra's launchers and sweepers: which of them are installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cppo_lab.errors import UserError, near_miss
from cppo_lab.paths import conf_dir
from cppo_lab.sweeps.expansion import hydra_settings

_EXTRAS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray", "ray_aws": "ray"}
"""The extra of the lab that brings a launcher."""
_GROUPS = ("hydra/launcher", "hydra/sweeper")


def check_launchers(overrides: Sequence[str], config_dir: Path | None) -> None:
    """Raise UserError for a launcher or sweeper that is not installed, and that no configuration folder has."""
    for override in hydra_settings(overrides):
        group, _, name = override.lstrip("+").partition("=")
        if group not in _GROUPS:
            continue
        known = _known(group, config_dir)
        if name not in known:
            extra = _EXTRAS.get(name)
            remedy = f" Install it with pip install 'cppo-lab[{extra}]'." if extra else near_miss(name, known)
            raise UserError(f"{group}={name}: not installed; allowed are {', '.join(known)}.{remedy}")


def _known(group: str, config_dir: Path | None) -> list[str]:
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    # Plug-ins store their configurations when they are found.
    Plugins.instance()
    stored = {name.removesuffix(".yaml") for name in ConfigStore.instance().list(group)}
    folders = [folder / group for folder in (conf_dir(), config_dir) if folder is not None]
    return sorted(stored | {path.stem for folder in folders for path in folder.glob("*.yaml")})

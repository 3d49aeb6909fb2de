"""Where the lab finds its own configuration files, and where it writes."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
OUTPUT_VARIABLE = "CPPO_LAB_OUTPUT"
PARENT_VARIABLE = "CPPO_LAB_PARENT_RUN"
"""Set for Hydra's jobs: the MLflow run of their sweep."""


def _data_dir(name: str) -> Path:
    # A wheel carries the folder inside the package; a checkout or an editable install has it beside it.
    inside = _PACKAGE / "data" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def checkout() -> Path | None:
    """The root of the checkout that the lab runs from; None where it is installed."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "conf").is_dir() else None


def conf_dir() -> Path:
    """The folder of Hydra's configuration groups (`algo/`, `model/`, `task/`, …)."""
    return _data_dir("conf")


def sweeps_dir() -> Path:
    """The folder of the sweeps that ship with the lab."""
    return _data_dir("sweeps")


def output_root() -> Path:
    """The output folder: `$CPPO_LAB_OUTPUT`, or `outputs` in the working directory."""
    return Path(os.environ.get(OUTPUT_VARIABLE) or "outputs")

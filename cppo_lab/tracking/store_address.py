"""Addresses of tracking stores: which one to use, and how it is written down and shown."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import yaml

from cppo_lab.addresses import without_credentials
from cppo_lab.paths import conf_dir


def default_uri(output: Path) -> str:
    """The SQLite store in the output folder."""
    return f"sqlite:///{(output / 'mlflow.db').resolve()}"


def tracking_uri(uri: str | None, output: Path) -> str:
    """The store to use: the configured one, `$MLFLOW_TRACKING_URI`, or a SQLite file in the output folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(output)


def default_experiment() -> str:
    """The experiment that runs are tracked in unless `tracking.experiment` says otherwise."""
    content = yaml.safe_load((conf_dir() / "tracking" / "mlflow.yaml").read_text(encoding="utf-8"))
    return str(content["experiment"])


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store; None for another store."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def store_name(uri: str, output: Path) -> str:
    """The name of a store in run folders: its address, or "default" for the one in the same output folder."""
    path = sqlite_path(uri)
    is_default = path is not None and path.resolve() == (output / "mlflow.db").resolve()
    return "default" if is_default else without_credentials(uri)


def ui_command(uri: str, output: Path) -> str:
    """The shell command that opens the store in a browser."""
    if uri.startswith("sqlite:"):
        path = (output / "mlflow.db").resolve()
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"mlflow ui --backend-store-uri {shlex.quote(f'sqlite:///{shown}')}"
    return f"open {without_credentials(uri)}"

"""Warnings on the terminal about trust regions that cannot act, or did not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cppo_lab.cli.console import console, plural

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig
    from cppo_lab.tracking.run_folder import RunFolder


def warn_before(configs: Iterable[RunConfig]) -> None:
    """Print what the configurations alone show, each sentence once."""
    from cppo_lab.training.region_warnings import warnings_before

    _print(said for config in configs for said in warnings_before(config))


def warn_after(folders: Iterable[RunFolder]) -> None:
    """Print what run.json says of finished runs, each sentence once."""
    _print(said for folder in folders if folder.is_readable for said in folder.info.get("warnings", []))


def _print(sentences: Iterable[str]) -> None:
    counts: dict[str, int] = {}
    for said in sentences:
        counts[said] = counts.get(said, 0) + 1
    for said, number in counts.items():
        runs = f" ({plural(number, 'run')})" if number > 1 else ""
        console().print(f"Warning: {said}{runs}", style="yellow", markup=False, soft_wrap=True)

"""`compare`: how runs differ in configuration and results."""

from __future__ import annotations

from typing import Annotated

import typer

from cppo_lab.cli.options import AsJson, Force, Output, Plugins
from cppo_lab.cli.report import compare_runs
from cppo_lab.paths import output_root
from cppo_lab.plugins import load_plugins


def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more runs, by name or ID.", show_default=False)],
    force: Force = False,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Show how runs differ in configuration and results.

    Example: `cppo-lab compare cppo-0123456789ab grpo-ba9876543210`
    """
    load_plugins(plugins or [])
    compare_runs(runs, output or output_root(), force, as_json)

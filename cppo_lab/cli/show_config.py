"""`config`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from cppo_lab.cli.console import console, print_json
from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import run_id
from cppo_lab.tracking.run_folder import jsonable_config


def show_config(overrides: Sequence[str], config_dir: Path | None, as_json: bool) -> None:
    """Print the resolved configuration of a run."""
    config = compose_run(overrides, config_dir)
    tree = config.model_dump(mode="python")
    identity = run_id(config)
    if as_json:
        print_json({"run_id": identity, "config": tree})
        return
    text = yaml.safe_dump(jsonable_config(tree), sort_keys=False, allow_unicode=True)
    text = f"# run {config.algo.name}-{identity}\n{text}"
    if console().is_terminal:
        from rich.syntax import Syntax

        console().print(Syntax(text, "yaml", background_color="default"))
    else:
        print(text, end="")

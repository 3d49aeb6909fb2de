"""The documentation: commands the lab understands, links that lead somewhere, pages that are in the site."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from documented_commands import PAGES, blocks, commands
from tiny_runs import ROOT

from cppo_lab import __version__
from cppo_lab.cli import app

Invoke = Callable[..., tuple[int, str, str]]
DOCS = ROOT / "docs"
# Typer brings a Click of its own, whose classes have no public name.
COMMANDS: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009
SHOWN = [(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)]
TUTORIAL = commands(DOCS / "tutorial.md")
ADHOC = [command for command in commands(DOCS / "runs.md") if command[0] == "sweep"]


@pytest.mark.parametrize(
    ("page", "command"), SHOWN, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_shown_commands_and_their_options_exist(page: str, command: list[str]) -> None:
    known = {
        option
        for parameter in COMMANDS[command[0]].params
        for option in parameter.opts + parameter.secondary_opts
    }
    assert {word.split("=")[0] for word in command if word.startswith("-")} <= known | {"--help"}


@pytest.mark.parametrize(
    "command", [c for c in [*TUTORIAL, *ADHOC] if c[0] in ("list", "plan", "sweep")], ids=" ".join
)
def test_the_plans_of_the_tutorial_and_of_ad_hoc_sweeps_hold(
    command: list[str], output: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (sweep_file,) = blocks(DOCS / "tutorial.md", "yaml")
    Path("thresholds.yaml").write_text(sweep_file, encoding="utf-8")
    extra = {"list": [], "plan": ["-o", str(output)], "sweep": ["--dry-run", "-o", str(output)]}[command[0]]
    code, out, err = invoke(*command, *extra)
    assert code == 0, err
    assert out.strip()


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != DOCS], ids=lambda page: page.name)
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(((?!https?:)[^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_every_page_is_in_the_site_and_every_entry_is_a_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": (\S+\.md)$", text, re.MULTILINE))
    made = {"cli.md", "contributing.md", "changelog.md"}
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert listed == there | made
    assert yaml.safe_load(text)["strict"] is True


def test_the_reference_of_the_command_line_can_be_made() -> None:
    command = [sys.executable, "-m", "typer", "cppo_lab.cli", "utils", "docs", "--name", "cppo-lab"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert all(f"## `cppo-lab {name}`" in done.stdout for name in COMMANDS)


def test_the_changelog_has_the_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_workflow_calls_targets_that_exist() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"].values()
    runs = [step["run"].split()[1] for job in jobs for step in job["steps"] if "run" in step]
    matrix = [
        target for job in jobs for target in job.get("strategy", {}).get("matrix", {}).get("target", [])
    ]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in {*runs, *matrix} - {"${{"}:
        assert re.search(rf"^{target}: ", makefile, re.MULTILINE), target


def test_the_make_targets_that_pages_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(
            r"(?:`|^)make ([a-z0-9_-]+)", page.read_text(encoding="utf-8"), re.MULTILINE
        ):
            sweep = ROOT / "sweeps" / f"{target.removeprefix('repro-')}.yaml"
            assert sweep.is_file() or re.search(rf"^(?:\S+ )*{target}(?: \S+)*:", makefile, re.MULTILINE), (
                page,
                target,
            )


def test_the_modules_of_the_reference_exist() -> None:
    for page in (DOCS / "api").glob("*.md"):
        modules = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert modules
        for module in modules:
            assert importlib.util.find_spec(module) is not None, module

"""The README's commands are understood by the lab, and its example takes a step.

Other pages, and the options of all commands, are in test_documentation.py; examples/ has tests of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from documented_commands import blocks, commands
from tiny_runs import ROOT

from cppo_lab.config.compose import compose_run

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
Invoke = Callable[..., tuple[int, str, str]]


COMMANDS = commands(ROOT / "README.md")


def test_the_readme_shows_every_command() -> None:
    assert {command[0] for command in COMMANDS} == {
        "list", "plan", "sweep", "tune", "reproduce", "results", "train", "report", "inspect", "compare",
        "unsafe-keeps", "eval", "config", "models", "doctor", "sync",
    }  # fmt: skip


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] in ("list", "plan", "config")], ids=" ".join)
def test_commands_that_only_show_something_do_so(command: list[str], output: Path, invoke: Invoke) -> None:
    extra = [] if command[0] == "list" else ["-o", str(output)]
    code, out, err = invoke(*command, *extra)
    assert code == 0, err
    assert out.strip()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "sweep"], ids=" ".join)
def test_sweeps_can_be_planned(command: list[str], output: Path, invoke: Invoke) -> None:
    code, out, err = invoke(*command, "--dry-run", "-o", str(output))
    assert code == 0, err
    assert "pending" in out


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "train"], ids=" ".join)
def test_runs_can_be_composed(command: list[str]) -> None:
    overrides = [word for word in command[1:] if "=" in word]
    if "--plugins" in command:
        folder = ROOT / command[command.index("--plugins") + 1]
        assert (folder / "conf" / overrides[0].replace("=", "/")).with_suffix(".yaml").is_file()
    else:
        assert compose_run(overrides).algo.name == "cppo"


EVALUATIONS = [
    *(command for command in COMMANDS if command[0] == "eval"),
    *(command for command in commands(ROOT / "docs" / "evaluation.md") if command[0] == "eval"),
]


@pytest.mark.parametrize("command", EVALUATIONS, ids=" ".join)
def test_evaluations_that_are_shown_make_sense(
    command: list[str], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in command:
        if word.endswith(".jsonl"):
            Path(word).write_text("", encoding="utf-8")
    asked: list[Any] = []
    monkeypatch.setattr("cppo_lab.cli.eval.evaluate_model", lambda request, *_: asked.append(request))
    monkeypatch.setattr("cppo_lab.cli.eval.compare_models", lambda names, *_: asked.append(names))
    code, _, err = invoke(*command)
    assert code == 0, err
    if "--compare" not in command:
        asked[0].check()


def test_the_targets_of_the_first_screen_exist() -> None:
    targets = [
        line.split()[1]
        for block in blocks(ROOT / "README.md", "bash")
        for line in block.splitlines()
        if line.startswith("make ")
    ]
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}: ", MAKEFILE, re.MULTILINE)


def test_pictures_and_pages_it_links_are_there() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)
    assert "docs/methods.md" in links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_example_for_other_trainers_takes_a_step() -> None:
    (example,) = blocks(ROOT / "README.md", "python")
    weights = torch.zeros(2, 3, requires_grad=True)
    advantages, mask = torch.tensor([1.0, -1.0]), torch.ones(2, 3, dtype=torch.bool)
    rollout_logp = torch.full((2, 3), -0.7)
    names: dict[str, Any] = {
        "minibatches": [(weights + rollout_logp, rollout_logp, advantages, mask)],
        "optimizer": torch.optim.SGD([weights], lr=1.0),
    }
    exec(example, names)
    torch.testing.assert_close(weights.detach(), advantages.unsqueeze(-1).expand(2, 3) / 6)

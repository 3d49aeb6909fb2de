"""What docs/engines.md shows can be typed as it stands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from tiny_runs import ROOT, TINY, tiny_config

from cppo_lab import plugins
from cppo_lab.config.compose import compose_run
from cppo_lab.errors import UserError
from cppo_lab.rollouts.engine_config import engines
from cppo_lab.rollouts.vllm import installation, probe
from cppo_lab.rollouts.vllm_config import VllmConfig
from cppo_lab.sweeps.sweep import find_sweep
from cppo_lab.training.run import run

PAGE = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
COMMANDS = [shlex.split(line, comments=True)[1:] for line in LINES if line.startswith("cppo-lab ")]
Invoke = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "train"], ids=" ".join)
def test_runs_can_be_composed(command: list[str]) -> None:
    assert isinstance(compose_run(command[1:]).engine, VllmConfig)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "sweep"], ids=" ".join)
def test_sweeps_compare_the_engines(command: list[str], tmp_path: Path) -> None:
    sweep, _ = find_sweep(command[1], [*command[2:], f"paths.output='{tmp_path}'"], None)
    assert sweep.axes["engine"] == ["native", "vllm"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "eval"], ids=" ".join)
def test_evaluations_make_sense(
    command: list[str], invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installation, "installed_version", lambda: "0.32.0")
    asked: list[Any] = []
    monkeypatch.setattr("cppo_lab.cli.eval.evaluate_model", lambda request, *_: asked.append(request))
    code, _, err = invoke(*command, "-o", str(tmp_path))
    assert code == 0, err
    asked[0].check()
    assert asked[0].engine == "vllm"


def test_every_kind_of_command_is_shown_and_doctor_is_one() -> None:
    assert {command[0] for command in COMMANDS} == {"train", "sweep", "eval", "doctor"}


def test_the_steps_of_the_installation_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile[makefile.index(".venv-vllm/.installed:") : makefile.index("test-vllm:")]
    packages = (ROOT / "requirements" / "vllm.txt").read_text(encoding="utf-8").splitlines()
    steps = [line for line in LINES if line.startswith("pip install") and "cppo-lab[vllm]" not in line]
    assert steps[0].removeprefix("pip install ") in packages, (
        "torch at the tested version, with what it needs"
    )
    assert "$$(grep '^torch==' $<)" in recipe
    assert "--no-deps -r $<" in recipe
    assert steps[1] == "pip install --no-deps -r requirements/vllm.txt"
    assert steps[2].removeprefix("pip install ") in recipe


def test_the_range_and_the_tolerances_are_those_of_the_code() -> None:
    assert f"`{installation.VERSIONS}`" in PAGE
    allowed = next(line for line in PAGE.splitlines() if line.startswith("| **allowed**"))
    values = [float(value) for value in re.findall(r"\*\*([\d.e-]+)\*\*", allowed)]
    assert values == [probe.TOLERANCE["float32"], probe.TOLERANCE["bfloat16"]]


def test_every_engine_is_in_the_table_with_its_weight_formats() -> None:
    table = PAGE[: PAGE.index("```bash")]
    rows = re.findall(r"^\| `(\w+)`.*\| (.*`) \|$", table, re.MULTILINE)
    shown = {name: tuple(re.findall(r"`(\w+)`", formats)) for name, formats in rows}
    assert shown == {
        name: get_args(part.model_fields["weights"].annotation) for name, part in engines.items()
    }


def test_the_engine_of_your_own_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(engines, "_entries", dict(engines._entries))
    blocks = re.findall(r"```(?:python|yaml)\n# (my_engine/\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for name, text in blocks:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    chosen = ("engine=fast", f"plugins=['{tmp_path / 'my_engine'}']")
    engine = compose_run([*chosen, "algo=grpo"]).engine
    assert engine.model_dump() == {
        "kind": "fast",
        "weights": "same",
        "batch_size": 512,
        "draft_tokens": 4,
    }
    with pytest.raises(UserError, match="does not record top-K log-probabilities"):
        compose_run([*chosen, "algo=dppo_topk_tv"])


def test_every_setting_is_explained() -> None:
    table = PAGE[PAGE.index("## Settings") : PAGE.index("## Weights")]
    named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert named == set(VllmConfig.model_fields) - {"kind"}


@pytest.mark.vllm
def test_the_first_command_trains(output: Path, vllm: Any) -> None:
    vllm.close()
    (first, *_) = (command for command in COMMANDS if command[0] == "train")
    config = tiny_config(output, *first[1:], *TINY, f"paths.output='{output}'", "trainer.steps=1")
    assert run(config).status == "FINISHED"

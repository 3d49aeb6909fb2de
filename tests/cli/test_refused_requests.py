"""Requests that cannot be met: one sentence that says what to do instead, before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from cppo_lab.errors import near_miss
from cppo_lab.models.device import device_bytes
from cppo_lab.tracking.run_folder import LOCK_FILE, RunFolder

Invoke = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "algo=cppo,grpo"], "use cppo-lab sweep algo=cppo,grpo"),
        (["train", "cppo"], "give key=value"),
        (["eval", "chain", "--model", "x", "--data", "foo"], "makes its own problems"),
        (
            ["eval", "gsm8k", "--model", "x", "--data", "foo", "--steps", "3"],
            "only applies to the chain task",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_meant_is_said(arguments: list[str], sentence: str, output: Path, invoke: Invoke) -> None:
    code, _, err = invoke(*arguments, "-o", str(output))
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize(
    "arguments", [["train", "trainer.device=cuda"], ["eval", "chain", "--model", "x", "--device", "cuda"]]
)
def test_a_device_that_is_not_there_is_refused(arguments: list[str], output: Path, invoke: Invoke) -> None:
    code, _, err = invoke(*arguments, "-o", str(output))
    assert code == 2
    assert "this machine has no CUDA device" in err
    assert not (output / "runs").exists()


@pytest.mark.skipif(device_bytes("cpu") > 450 * 2**30, reason="the model fits this machine")
@pytest.mark.parametrize("command", [["train"], ["sweep", "table1", "scale=paper"]])
def test_a_model_that_no_memory_here_holds_is_refused(
    command: list[str], output: Path, invoke: Invoke
) -> None:
    choices = ("recipe=qwen3_30b_a3b_base", "algo=cppo", "engine=native", "trainer.device=cpu")
    code, _, err = invoke(*command, *choices, "-o", str(output))
    said = " ".join(err.split())
    assert code == 2
    assert (
        "model.path=Qwen/Qwen3-30B-A3B-Base: training 30.5 billion parameters by cppo holds 455 GiB" in said
    )
    assert "billion at most." in said
    assert not (output / "runs").exists()


def test_a_folder_of_checkpoints_names_one_of_them(tmp_path: Path, invoke: Invoke) -> None:
    last = tmp_path / "run" / "checkpoints" / "step_000004"
    last.mkdir(parents=True)
    (last / "config.json").write_text("{}", encoding="utf-8")
    code, _, err = invoke("eval", "chain", "--model", str(tmp_path / "run"), "-o", str(tmp_path))
    assert code == 2
    assert "such as" in err
    assert "step_000004" in err


def test_of_names_as_close_the_one_that_begins_alike_is_meant() -> None:
    assert near_miss("cpo", ["ctpo", "cppo", "grpo"]) == " Did you mean 'cppo'?"


def test_a_run_that_nobody_works_on_is_listed_as_interrupted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.update_info(status="RUNNING")
    with FileLock(tmp_path / LOCK_FILE):
        assert RunFolder(tmp_path).present_status == "RUNNING"
    assert folder.present_status == "INTERRUPTED"
    folder.update_info(status="FINISHED")
    assert folder.present_status == "FINISHED"

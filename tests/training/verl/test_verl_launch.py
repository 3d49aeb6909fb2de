"""The process that trains by verl: what is made of how it ends, and that nothing is left. Real processes, no verl."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_config

from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.tracking.run_folder import RunFolder, run_folder
from cppo_lab.training.activity import Activity
from cppo_lab.training.preflight import check_inputs
from cppo_lab.training.update import Diverged
from cppo_lab.training.verl import launch
from cppo_lab.training.verl.driver import ACTIVITY, OUTCOME, sentence

HEAD = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[3])
def step(number):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({{"step": number}}) + "\\n")
def end(**outcome):
    (folder / "{OUTCOME}").write_text(json.dumps(outcome))
def orphan():
    subprocess.Popen(["sleep", "90"], start_new_session=True)
"""


def prepared(tmp_path: Path, body: str, *overrides: str) -> tuple[RunConfig, RunFolder]:
    """A run whose driver does `body` in the place of verl's."""
    script = tmp_path / "python"
    script.write_text(HEAD + body)
    script.chmod(0o755)
    own = ("backend=verl", "backend.device=cpu", f"backend.python='{script}'")
    config = tiny_config(tmp_path / "out", *own, *overrides)
    folder = run_folder(config)
    folder.create(config.model_dump(mode="python"))
    return config, folder


def train(config: RunConfig, folder: RunFolder) -> list[int]:
    """Train, and return the steps that were told."""
    told: list[int] = []

    def on_step(step: int, _metrics: Any) -> None:
        told.append(step)

    try:
        launch.train_by_verl(config, folder, "start", on_step)
    finally:
        assert launch.Family(str(folder.path.resolve())).alive() == []
    return told


def test_steps_are_told_as_they_are_written(tmp_path: Path) -> None:
    body = "step(0)\ntime.sleep(1.2)\nstep(1)\norphan()\nend(status='FINISHED', reason=None)\ntime.sleep(1)\n"
    config, folder = prepared(tmp_path, body)
    assert train(config, folder) == [0, 1]


def test_what_is_being_done_is_told_and_is_a_sign_of_life(tmp_path: Path) -> None:
    body = f"""
for done in range(4):
    (folder / "{ACTIVITY}").write_text(json.dumps(dict(step=2, kind="updates", done=done, planned=4)))
    time.sleep(1)
end(status='FINISHED', reason=None)
"""
    config, folder = prepared(tmp_path, body, "backend.startup_s=3", "backend.silence_s=3")
    told: list[Activity] = []
    launch.train_by_verl(config, folder, "start", None, told.append)
    assert told[-1] == Activity(2, "updates", 3, 4)
    updates = [each.done for each in told if each.kind == "updates"]
    assert updates == sorted({*updates})


def test_the_start_of_verl_s_processes_is_told(tmp_path: Path) -> None:
    config, folder = prepared(tmp_path, "time.sleep(2)\nend(status='FINISHED', reason=None)\n")
    told: list[Activity] = []
    launch.train_by_verl(config, folder, "start", None, told.append)
    assert {(each.step, each.kind, each.planned) for each in told} == {(0, "start", 900)}
    assert told[-1].done >= 1


def test_the_job_has_what_verl_is_told(tmp_path: Path) -> None:
    config, folder = prepared(tmp_path, "end(status='FINISHED', reason=None)\n")
    train(config, folder)
    job = json.loads((folder.path / "verl" / "job.json").read_text())
    assert job["start"] == "start"
    assert 'actor_rollout_ref.model.path="start"' in job["overrides"]


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("end(status='FAILED', reason='a grader raised')\nsys.exit(1)\n", UserError, "a grader raised; "),
        ("end(status='FAILED', reason='loss nan', diverged=True)\nsys.exit(1)\n", Diverged, "loss nan; "),
        ("sys.exit(3)\n", UserError, "verl's driver ended with exit code 3; "),
        ("os.kill(os.getpid(), 9)\n", UserError, "verl's driver ended with signal 9; "),
        ("end(status='INTERRUPTED', reason=None)\nsys.exit(1)\n", KeyboardInterrupt, ""),
    ],
    ids=["failed", "diverged", "exit code", "killed", "interrupted"],
)
def test_how_it_ended_is_raised(tmp_path: Path, body: str, kind: type[BaseException], said: str) -> None:
    config, folder = prepared(tmp_path, "orphan()\n" + body)
    with pytest.raises(kind) as raised:
        train(config, folder)
    assert str(raised.value).startswith(said)
    assert kind is KeyboardInterrupt or "verl/verl.log" in str(raised.value)


@pytest.mark.parametrize(
    ("body", "overrides", "key"),
    [
        ("time.sleep(90)\n", "backend.startup_s=1", "backend.startup_s"),
        ("step(0)\ntime.sleep(90)\n", "backend.silence_s=1", "backend.silence_s"),
    ],
    ids=["at the start", "later"],
)
def test_silence_ends_the_run(tmp_path: Path, body: str, overrides: str, key: str) -> None:
    config, folder = prepared(tmp_path, "orphan()\n" + body, overrides)
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"verl gave no sign of life for 1 s \({key}\)"):
        train(config, folder)
    assert time.monotonic() - began < 30


def test_an_interrupt_reaches_the_driver_and_is_raised(tmp_path: Path) -> None:
    body = """
import signal
def told(*_):
    end(status='INTERRUPTED', reason=None)
    sys.exit(1)
signal.signal(signal.SIGTERM, told)
orphan()
step(0)
time.sleep(90)
"""
    config, folder = prepared(tmp_path, body)

    def interrupt() -> None:
        while not folder.rows("metrics.jsonl"):
            time.sleep(0.1)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    # A test run started in the background ignores interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            train(config, folder)
    finally:
        signal.signal(signal.SIGINT, before)
    assert json.loads((folder.path / OUTCOME).read_text())["status"] == "INTERRUPTED"


def test_without_an_environment_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CPPO_LAB_VERL_PYTHON", raising=False)
    monkeypatch.setattr(launch, "checkout", lambda: tmp_path)
    config = tiny_config(tmp_path / "out", "backend=verl", "backend.device=cpu")
    with pytest.raises(UserError, match=r"verl has no environment yet .*run make backend-verl"):
        check_inputs(config)
    monkeypatch.setenv("CPPO_LAB_VERL_PYTHON", "/nowhere/python")
    with pytest.raises(UserError, match="CPPO_LAB_VERL_PYTHON=/nowhere/python: no such Python"):
        check_inputs(config)


def test_what_verl_cannot_train_is_refused_before_it_starts(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "out", "backend=verl", "backend.device=cpu", "algo=ppo")
    with pytest.raises(UserError, match="algo=ppo: trains a critic"):
        check_inputs(config)


def test_an_error_becomes_one_line() -> None:
    error = RuntimeError("a traceback of many lines")
    error.__cause__ = ValueError("first line\nlast line\n")
    assert sentence(error) == "ValueError: last line"
    assert sentence(KeyError()) == "KeyError: no message"

"""Runs by verl that something goes wrong with: each ends with a sentence, a state that is true, and no process left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import torch
from tiny_runs import ROOT, clean_environment, lab, start_lab, wait_for
from verl_processes import (
    PYTHON,
    VERL,
    left_over,
    only_run,
    overrides,
    processes,
    steps_done,
    train,
)

from cppo_lab.training.verl.launch import LOG

pytestmark = [
    pytest.mark.verl,
    pytest.mark.skipif(not PYTHON.is_file(), reason="verl has no environment here: make test-backend-verl"),
]

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}


def test_an_interrupt_ends_every_process_and_leaves_a_run_that_resumes(output: Path) -> None:
    begun = start_lab("train", *overrides(*VERL), f"paths.output='{output}'", cwd=output)
    wait_for(lambda: steps_done(lambda: only_run(output)) >= 2, begun)
    begun.send_signal(signal.SIGINT)
    begun.communicate(timeout=180)
    run = only_run(output)
    assert run.status == "INTERRUPTED"
    assert left_over(run) == []


def test_so_does_an_interrupt_while_the_workers_start(output: Path) -> None:
    begun = start_lab("train", *overrides(*VERL), f"paths.output='{output}'", cwd=output)
    wait_for(lambda: (output / "runs").is_dir() and bool(processes(only_run(output), "raylet")), begun)
    begun.send_signal(signal.SIGINT)
    begun.communicate(timeout=180)
    run = only_run(output)
    assert run.status == "INTERRUPTED"
    assert left_over(run) == []


def test_ray_s_head_killed_fails_the_run(output: Path) -> None:
    begun = start_lab("train", *overrides(*VERL), f"paths.output='{output}'", cwd=output)
    wait_for(lambda: steps_done(lambda: only_run(output)) >= 2, begun)
    for part in ("gcs_server", "raylet"):
        for each in processes(only_run(output), part):
            each.kill()
    said, _ = begun.communicate(timeout=240)
    run = only_run(output)
    assert begun.returncode != 0
    assert f"{LOG} has what" in said
    assert run.status == "FAILED"
    assert left_over(run) == []


def test_a_full_disk_is_said(small_disk: Path) -> None:
    done = train(small_disk, *VERL, "trainer.checkpoint_every=1")
    assert done.returncode != 0
    assert "there is no room left on its disk" in done.stdout + done.stderr
    run = only_run(small_disk)
    assert run.present_status in ("FAILED", "INTERRUPTED")
    assert left_over(run) == []


@pytest.fixture
def small_cluster() -> Iterator[str]:
    """The address of a Ray cluster without devices, which asks for a token."""
    ray, environment = str(PYTHON.with_name("ray")), clean_environment(**TOKEN)
    options = ["--num-cpus=2", "--port=0", "--include-dashboard=false", "--disable-usage-stats"]
    began = subprocess.run(
        [ray, "start", "--head", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    address = re.search(r"--address='([^']+)'", began.stdout)
    assert address is not None, began.stdout
    yield address[1]
    subprocess.run([ray, "stop", "--force"], env=environment, capture_output=True, check=True, timeout=60)


def test_a_cluster_that_is_too_small_or_asks_for_a_token_is_said(small_cluster: str, output: Path) -> None:
    asked = (*overrides(*VERL), f"backend.address='{small_cluster}'", f"paths.output='{output}'")
    unknown = lab("train", *asked, cwd=output, RAY_AUTH_MODE="disabled")
    assert "the Ray cluster asks for a token; set RAY_AUTH_MODE=token" in unknown.stderr
    small = lab("train", *asked, cwd=output, **TOKEN)
    assert "the Ray cluster has 0 GPUs, and the run needs 2" in small.stderr
    assert unknown.returncode != 0
    assert small.returncode != 0


def test_ports_that_others_took_are_no_fault(output: Path) -> None:
    with ExitStack() as opened:
        # Those of Ray's head, dashboard and clients, and of torch's rendezvous.
        for port in (6379, 8265, 10001, 29500):
            held = opened.enter_context(socket.socket())
            with suppress(OSError):
                held.bind(("", port))
                held.listen()
        done = train(output, *VERL)
    assert done.returncode == 0, done.stderr
    assert only_run(output).status == "FINISHED"


def test_a_model_that_is_not_there_is_said_before_verl_starts(output: Path) -> None:
    data = output / "data.jsonl"
    data.write_text("".join(f'{{"question": "{i} + 1 =", "answer": "{i + 1}"}}\n' for i in range(40)))
    model = (
        "model=pretrained",
        "model.path=./not-there",
        "task=gsm8k",
        f"task.path={data}",
        "task.heldout=8",
    )
    done = lab("train", *model, *VERL, f"paths.output='{output}'", cwd=output)
    assert done.returncode != 0
    assert "no such model folder" in done.stderr
    assert not (output / "runs").exists()


def test_a_reward_that_raises_fails_the_run(output: Path) -> None:
    reward = output / "reward.py"
    reward.write_text("def reward(completions, **columns):\n    raise ValueError('no such column: gold')\n")
    data = output / "data.jsonl"
    held_out = output / "held_out.jsonl"
    for path, first in ((data, 0), (held_out, 40)):
        rows = [{"question": f"{i} + 1 =", "answer": f"#### {i + 1}"} for i in range(first, first + 40)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = lab(
        "train",
        "task=custom",
        f"task.path={data}",
        f"task.heldout_path={held_out}",
        f"task.reward={reward}",
        "task.solution_column=answer",
        "model=s",
        "tracking=none",
        "warmup=gsm8k",
        "warmup.steps=1",
        "warmup.max_steps=1",
        *VERL,
        f"paths.output='{output}'",
        cwd=output,
    )
    assert done.returncode != 0
    assert "no such column: gold" in done.stdout + done.stderr


def test_another_version_of_verl_is_refused(output: Path, tmp_path: Path) -> None:
    """Metadata of another version lie before those of the installed one."""
    (tmp_path / "fake" / "verl-0.8.0.dist-info").mkdir(parents=True)
    (tmp_path / "fake" / "verl-0.8.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: verl\nVersion: 0.8.0\n"
    )
    done = lab(
        "train",
        *overrides(*VERL),
        f"paths.output='{output}'",
        cwd=output,
        PYTHONPATH=os.pathsep.join((str(ROOT), str(tmp_path / "fake"))),
    )
    assert done.returncode != 0
    assert "verl 0.8.0 is installed; the lab needs 0.9.1" in done.stdout + done.stderr


def test_gpus_that_are_not_there_are_said(output: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has GPUs")
    done = train(output, "backend=verl", f"backend.python={PYTHON}")
    assert done.returncode != 0
    assert "backend.gpus_per_node=8: this machine has 0 GPUs" in done.stdout + done.stderr

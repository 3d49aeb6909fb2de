"""Runs small enough for a test: seconds each, but long enough that the policy really learns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import cppo_lab
from cppo_lab.config.compose import compose_run
from cppo_lab.config.schema import RunConfig
from cppo_lab.models.loading import Policy
from cppo_lab.rollouts.native import NativeEngine
from cppo_lab.tracking.run_folder import RunFolder, run_folder
from cppo_lab.training.loop import TrainingLoop
from cppo_lab.training.run import training_loop
from cppo_lab.training.starting_policy import load_starting_policy, starting_policy

# One-step problems: a policy of 120 warm-up updates solves about a tenth of them, so that most groups of eight
# hold both right and wrong responses and every step takes updates.
STARTING_POLICY = (
    "task.steps=1",
    "task.heldout=64",
    "warmup.longest=1",
    "warmup.steps=120",
    "warmup.band=null",
    "warmup.max_steps=120",
)
TINY = (
    *STARTING_POLICY,
    "trainer.steps=3",
    "trainer.prompts_per_step=6",
    "trainer.group_size=8",
    "trainer.prompts_per_minibatch=2",
    "trainer.epochs=1",
    "trainer.evaluation_problems=32",
    "trainer.checkpoint_every=1",
    "tracking=none",
)
# One update on random weights: for tests in which nothing needs to be learnt.
UNTRAINED = ("warmup.steps=1", "warmup.max_steps=1")

ROOT = Path(cppo_lab.__file__).resolve().parents[1]


def tiny_config(output: Path, *overrides: str) -> RunConfig:
    """The configuration of a tiny run that writes to `output`; later overrides replace earlier ones."""
    return compose_run([*TINY, f"paths.output='{output}'", *overrides])


def starting(config: RunConfig) -> Policy:
    """The starting policy of `config`, loaded anew."""
    return load_starting_policy(config, starting_policy(config, config.task.build()))


def engine_for(policy: Policy, **settings: Any) -> NativeEngine:
    """A native engine with the policy's weights."""
    return NativeEngine(policy.network, pad_token=policy.pad_token, eos_token=policy.eos_token, **settings)


def loop_for(config: RunConfig) -> TrainingLoop:
    """A training loop in this process, at its first step, with a run folder in which logs can be written."""
    policy = starting(config)
    engine = engine_for(policy, weights=config.engine.weights, batch_size=config.engine.batch_size)
    eval_engine = engine if config.engine.weights == "same" else engine_for(policy)
    folder = run_folder(config)
    folder.create(config.model_dump(mode="python"))
    return training_loop(config, config.task.build(), policy, engine, eval_engine, folder)


def same_weights(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Whether two state dicts hold the same names and the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment of a command: this lab, one thread, nothing inherited that changes where it writes."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("CPPO_LAB_", "MLFLOW_", "HYDRA_"))
    }
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"} | extra


def command(*arguments: str) -> list[str]:
    """The command line `cppo-lab …` for a process of its own."""
    return [sys.executable, "-m", "cppo_lab", *arguments]


def lab(
    *arguments: str, cwd: Path, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `cppo-lab …` in a process of its own, to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start_lab(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start `cppo-lab …` in a process group of its own and return at once."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A test run started in the background ignores interrupts, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], timeout: float = 180) -> None:
    """Wait until `condition`; fails when the process ends before, or the time runs out."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            output = process.communicate()[0]
            raise AssertionError(f"the command ended too early with {process.returncode}:\n{output}")
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGKILL)
            raise AssertionError("what the test waits for did not happen in time")
        time.sleep(0.02)


def one_run_folder(output: Path) -> Path:
    """The only run folder below `output`."""
    folders = [path for path in (output / "runs").iterdir() if path.is_dir()]
    assert len(folders) == 1, folders
    return folders[0]


def files_with_times(root: Path, patterns: Sequence[str] = ("**/*",)) -> dict[str, tuple[int, bytes]]:
    """Modification time and content of every file below `root`, to see whether anything was rewritten."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for pattern in patterns
        for path in root.glob(pattern)
        if path.is_file()
    }


def written_run(config: RunConfig, status: str = "FINISHED", steps: int = 3, **info: Any) -> RunFolder:
    """The folder of a run as the trainer would leave it, without training."""
    folder = run_folder(config)
    folder.create(config.model_dump(mode="python"))
    folder.update_info(
        run_id=folder.path.name.rpartition("-")[2],
        name="cppo seed 0",
        status=status,
        reason=None,
        method=config.algo.name,
        git={"commit": "c" * 40, "dirty": True},
        versions={"torch": "2.13.0"},
    )
    folder.update_info(**info)
    for step in range(steps):
        row = {"step": step, "eval/heldout/accuracy": 0.25 * step, "train/undefined": float("nan")}
        folder.append("metrics.jsonl", row)
    folder.write_samples(0, [{"prompt": "p", "completion": '"tokens": {', "tokens": None}])
    folder.write_samples(1, [{"prompt": "p", "completion": "c", "tokens": {"text": ["c"]}}])
    folder.write_samples(steps - 1, [{"prompt": "p", "completion": "c"}])
    return folder

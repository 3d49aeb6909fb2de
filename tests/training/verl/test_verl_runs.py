"""Runs by verl's own workers on two CPU processes: equal to the lab's own process, whatever is killed on the way."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from tiny_runs import clean_environment, lab, same_weights, start_lab, tiny_config, wait_for
from verl_processes import (
    PYTHON,
    STEPS,
    VERL,
    left_over,
    only_run,
    output_with_policy,
    overrides,
    processes,
    steps_done,
    train,
    worker,
)

from cppo_lab.config.backend import VerlBackend
from cppo_lab.sweeps.sweep import find_sweep
from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.training.policy_cache import cache_folder
from cppo_lab.training.state_file import read_state
from cppo_lab.training.verl.launch import driver_environment
from cppo_lab.training.verl.translate import translate

pytestmark = [
    pytest.mark.verl,
    pytest.mark.skipif(not PYTHON.is_file(), reason="verl has no environment here: make test-backend-verl"),
]
HERE = Path(__file__).parent
METHODS = ("cppo", "cppo_binary", "dppo_tv", "grpo", "dr_grpo", "gspo", "grpo_tis")


def in_verl(script: str, *arguments: str, given: str = "") -> str:
    """What a script of this folder says when verl's Python runs it."""
    backend = VerlBackend.model_construct(device="cpu")
    done = subprocess.run(
        [str(PYTHON), str(HERE / script), *arguments],
        env=driver_environment(backend, "tests"),
        input=given,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def uninterrupted(warmed_up: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One run by verl."""
    output = output_with_policy(warmed_up, tmp_path_factory.mktemp("verl") / "out")
    done = train(output, *VERL)
    assert done.returncode == 0, done.stdout + done.stderr
    return only_run(output)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_gradient_of_an_update_is_that_of_the_lab_s_own_learner(
    workers: int, warmed_up: Path, tmp_path: Path
) -> None:
    start = cache_folder(tiny_config(warmed_up))
    said = in_verl("verl_gradients.py", str(start), str(tmp_path), str(workers), *METHODS)
    found: dict[str, dict[str, Any]] = json.loads(
        next(line for line in said.splitlines() if line.startswith('{"cppo"'))
    )
    assert list(found) == list(METHODS)
    for name, differences in found.items():
        assert differences["gradient"] < 1e-5, name
        assert differences["norm"] < 1e-5, name
        assert differences["loss"] < 1e-6, name
        assert differences["same_masked"], name
    for name in ("cppo", "cppo_binary", "dppo_tv"):
        assert found[name]["masked"] > 0, "the test's sampler is not far enough off"


def test_a_run_is_that_of_the_lab_s_own_process(
    uninterrupted: RunFolder, warmed_up: Path, tmp_path: Path
) -> None:
    output = output_with_policy(warmed_up, tmp_path / "out")
    done = train(output)
    assert done.returncode == 0, done.stdout + done.stderr
    native = only_run(output).rows("metrics.jsonl")
    ours = uninterrupted.rows("metrics.jsonl")
    assert [row.keys() for row in ours] == [row.keys() for row in native]
    exact = ("train/accuracy", "train/updates", "rollout/length_mean", "eval/heldout/accuracy", "train/lr")
    close = ("train/grad_norm", "policy/entropy", "policy/divergence")
    for left, right in zip(ours, native, strict=True):
        for name in exact:
            assert left.get(name) == right.get(name), (right["step"], name)
        for name in (name for name in close if right.get(name) is not None):
            assert left[name] == pytest.approx(right[name], rel=5e-3, abs=1e-6), (right["step"], name)


def test_its_folder_is_a_run_folder(uninterrupted: RunFolder) -> None:
    info = uninterrupted.info
    assert info["status"] == "FINISHED"
    assert info["steps_done"] == STEPS
    assert info["backend"]["kind"] == "verl"
    assert info["backend"]["workers"] == 2
    assert info["backend"]["versions"]["verl"] == "0.9.1"
    assert info["model"]["parameters"] > 0
    assert info["starting_policy"]["recipe"]
    assert uninterrupted.rows("profiles.jsonl")
    assert uninterrupted.rows("agreement.jsonl")
    samples = uninterrupted.path / "samples" / "step_000001.jsonl"
    row = json.loads(samples.read_text(encoding="utf-8").splitlines()[0])
    assert row["tokens"]["text"]


def test_the_checkpoint_is_a_model_that_eval_reads(uninterrupted: RunFolder, tmp_path: Path) -> None:
    (_, checkpoint) = uninterrupted.checkpoints()[-1]
    own = ("--run", str(uninterrupted.path), "--limit", "32")
    done = lab("eval", "chain", *own, "--output", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "32 problems" in done.stdout
    assert (checkpoint / "verl" / "optim_world_size_2_rank_1.pt").is_file()


@pytest.fixture
def interrupted(warmed_up: Path, tmp_path: Path) -> Path:
    return output_with_policy(warmed_up, tmp_path / "out")


def kill_and_resume(output: Path, victim: Callable[[RunFolder], psutil.Process], number: int) -> str:
    """Start the run, signal a process of it after a step, and see the command end; what it said."""
    begun = start_lab("train", *overrides(*VERL), f"paths.output='{output}'", cwd=output)
    wait_for(lambda: steps_done(lambda: only_run(output)) >= 2, begun)
    victim(only_run(output)).send_signal(number)
    said, _ = begun.communicate(timeout=180)
    assert begun.returncode != 0
    assert left_over(only_run(output)) == []
    return said


def assert_same(resumed: RunFolder, whole: RunFolder) -> None:
    """Bit by bit: metrics, weights."""
    assert resumed.rows("metrics.jsonl") == whole.rows("metrics.jsonl")
    (_, left), (_, right) = resumed.checkpoints()[-1], whole.checkpoints()[-1]
    assert same_weights(load_file(left / "model.safetensors"), load_file(right / "model.safetensors"))
    states = [read_state(each) for each in (left, right)]
    assert states[0]["step"] == states[1]["step"] == STEPS


def test_a_killed_worker_fails_the_run_which_resumes_as_if_nothing_had_been(
    interrupted: Path, uninterrupted: RunFolder
) -> None:
    said = kill_and_resume(interrupted, worker, signal.SIGKILL)
    assert "a process of verl died" in said
    run = only_run(interrupted)
    assert run.status == "FAILED"
    assert "a process of verl died" in run.info["reason"]
    done = train(interrupted, *VERL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(run, uninterrupted)


def test_so_does_a_killed_driver(interrupted: Path, uninterrupted: RunFolder) -> None:
    said = kill_and_resume(interrupted, lambda run: processes(run, "training.verl.driver")[0], signal.SIGKILL)
    assert "verl's driver ended with signal 9" in said
    done = train(interrupted, *VERL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(only_run(interrupted), uninterrupted)


def test_other_workers_cannot_resume_it(uninterrupted: RunFolder, interrupted: Path) -> None:
    shutil.copytree(uninterrupted.path.parent, interrupted / "runs")
    run = only_run(interrupted)
    run.update_info(status="INTERRUPTED")
    done = train(interrupted, *VERL, "backend.workers=1")
    assert done.returncode != 0
    assert "was written by 2 workers of verl, and the run has 1 now" in done.stderr + done.stdout


def test_verl_s_own_loader_takes_every_run_at_paper_scale(tmp_path: Path) -> None:
    planned, _ = find_sweep("table1", ["scale=paper", "backend=verl", f"paths.output={tmp_path}"], None)
    translations = [translate(run.config, "start") for run in planned.runs]
    asked = [list(each.overrides) for each in translations]
    assert len(asked) == 32
    assert {each.refusals[0].split(":")[0] for each in translations if each.refusals} == {"algo=ppo"}
    said = in_verl("verl_configurations.py", given=json.dumps(asked))
    assert said.count("vllm 1") == 32


def test_nothing_that_verl_does_not_promise_has_changed() -> None:
    code = "from cppo_lab.integrations.verl.private import changed; print(changed())"
    done = subprocess.run(
        [str(PYTHON), "-c", code],
        env=clean_environment()
        | {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "cppo_lab.integrations.verl"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"

"""Sweeps by submitit without Slurm: the same runs bit for bit, whoever is killed; and the script for Slurm."""

from __future__ import annotations

import pickle
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'cppo-lab[slurm]'")

from elsewhere import (
    FEW,
    arguments,
    assert_every_run_once,
    end,
    folders,
    holders,
    processes_below,
    start,
    swept,
)
from tiny_runs import lab, tiny_config

from cppo_lab.executors.remote_job import RemoteJob
from cppo_lab.executors.settings import Submitit
from cppo_lab.executors.slurm import sbatch_script
from cppo_lab.sweeps.jobs import jobs_for

HERE = ("executor=submitit", "executor.cluster=local", "executor.poll_s=0.2")


@pytest.mark.slow
def test_a_killed_worker_is_replaced(expected: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(output, *HERE)
    worker = processes_below(process.pid, lambda line: "submitit.core._submit" in line)[0]
    worker.kill()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "lost " in said
    assert_every_run_once(output, expected)
    assert max(folder.info["attempts"] for folder in folders(output).values()) == 2


@pytest.mark.slow
def test_a_killed_driver_is_started_again(expected: dict[str, bytes], tmp_path: Path) -> None:
    """Its workers go on, as a cluster's would; their runs are waited for and not done twice."""
    output = tmp_path / "out"
    end(start(output, *HERE, FEW), signal.SIGKILL)
    done = swept(output, *HERE, FEW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_every_run_once(output, expected, 4)
    assert {folder.info["attempts"] for folder in folders(output).values()} == {1}


@pytest.mark.slow
def test_an_interrupt_ends_every_worker_and_the_same_command_resumes(
    expected: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    said = end(start(output, *HERE, FEW), signal.SIGINT)
    assert "To resume, run the same command" in said
    deadline = time.monotonic() + 60
    while holders(output):
        assert time.monotonic() < deadline, "a worker went on"
        time.sleep(0.2)
    assert "RUNNING" not in {folder.status for folder in folders(output).values()}
    assert swept(output, *HERE, FEW).returncode == 0
    assert_every_run_once(output, expected, 4)


@pytest.mark.slow
def test_a_detached_sweep_goes_on_alone(expected: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = lab(*arguments(output, FEW), "--detach", cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "goes on in process" in done.stdout
    (log,) = output.glob("sweeps/*/driver.log")
    deadline = time.monotonic() + 300
    while log.read_text(encoding="utf-8").count("done ") < 5:
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.5)
    assert_every_run_once(output, expected, 4)


def test_a_job_is_requeued_as_it_is(tmp_path: Path) -> None:
    (job,) = [each for each in jobs_for([tiny_config(tmp_path)]) if each.kind == "run"]
    remote = RemoteJob.of(job)
    requeued = remote.checkpoint()
    assert pickle.loads(pickle.dumps(requeued)).function == remote


def test_the_script_asks_slurm_for_what_the_settings_say(tmp_path: Path) -> None:
    settings = Submitit(
        partition="gpu", gpus=1, memory_gb=24, parallel=8, setup=("module load cuda",), account="lab"
    )
    script = sbatch_script(settings, tmp_path, "table1", jobs=32)
    for line in (
        "#SBATCH --array=0-31%8",
        "#SBATCH --job-name=table1",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=lab",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --mem=24576MB",
        "#SBATCH --time=1440",
        "#SBATCH --signal=USR2@120",
        "module load cuda",
    ):
        assert line in script.splitlines()
    assert "-m submitit.core._submit" in script


def test_without_slurm_it_says_so(tmp_path: Path) -> None:
    done = lab(*arguments(tmp_path, "executor=submitit"), cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no srun on this machine" in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_prints_the_script(tmp_path: Path) -> None:
    done = lab(*arguments(tmp_path, "executor=submitit"), "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --signal=USR2@120" in done.stdout

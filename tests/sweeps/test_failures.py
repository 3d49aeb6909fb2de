"""What a sweep does about runs that fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from tiny_runs import TINY, lab, written_run

from cppo_lab.config.compose import compose_run
from cppo_lab.errors import UserError
from cppo_lab.sweeps.failures import FailurePolicy, failure_policy
from cppo_lab.sweeps.jobs import Job, fail_run
from cppo_lab.tracking.run_folder import LOCK_FILE, RunFolder

Invoke = Callable[..., tuple[int, str, str]]
# A step of the weights that no float holds: the run diverges at once.
DIVERGING = ("trainer.lr=1e30", "trainer.grad_clip=null")


def folder(tmp_path: Path, status: str | None, *, diverged: bool = False) -> RunFolder:
    found = RunFolder(tmp_path)
    if status is not None:
        found.update_info(status=status, diverged=diverged)
    return found


@pytest.mark.parametrize(
    ("status", "diverged", "policy", "to_do"),
    [
        (None, False, FailurePolicy(), True),
        ("FINISHED", False, FailurePolicy(retries=3), False),
        ("INTERRUPTED", False, FailurePolicy(retries_earlier=False), True),
        ("RUNNING", False, FailurePolicy(retries_earlier=False), True),
        ("FAILED", False, FailurePolicy(), True),
        ("FAILED", False, FailurePolicy(retries_earlier=False), False),
        ("FAILED", False, FailurePolicy(keeps_diverged=True), True),
        ("FAILED", True, FailurePolicy(), True),
        ("FAILED", True, FailurePolicy(keeps_diverged=True), False),
    ],
)
def test_which_runs_are_to_do(
    status: str | None, diverged: bool, policy: FailurePolicy, to_do: bool, tmp_path: Path
) -> None:
    assert policy.is_to_do(folder(tmp_path, status, diverged=diverged)) is to_do


def test_a_diverged_run_is_not_tried_again_within_a_command_and_others_are_so_often(tmp_path: Path) -> None:
    policy = FailurePolicy(retries=2)
    assert [policy.tries_again(folder(tmp_path, "FAILED"), failures) for failures in (1, 2, 3)] == [
        True,
        True,
        False,
    ]
    assert not policy.tries_again(folder(tmp_path, "FAILED", diverged=True), 1)


@pytest.mark.parametrize("text", ["-1", "often", "1.5", "101", ""])
def test_retries_that_are_no_count_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--retry-failed .*: must be a number from 0 to 100, or never"):
        failure_policy(text, fail_fast=False, keep_diverged=False)


def test_options_that_another_part_would_ignore_are_refused(invoke: Invoke, tmp_path: Path) -> None:
    for others in (["hydra/launcher=joblib"], ["executor=submitit"]):
        code, _, err = invoke("sweep", "seed=0,1", *others, "--fail-fast", "-o", str(tmp_path / "o"))
        assert code == 2
        assert f"have no effect with {others[0]}" in err
    growing = ["sweep", "quickstart", "trainer.lr=1e-4", "--until-resolved", "-o", str(tmp_path / "o")]
    code, _, err = invoke(*growing, "--keep-diverged")
    assert code == 2
    assert "have no effect with --until-resolved" in err


@pytest.mark.slow
def test_diverged_runs_are_results_where_asked(output: Path, tmp_path: Path) -> None:
    told = ["sweep", "seed=0,1", *TINY, *DIVERGING, "--jobs", "1", "--no-report", "-o", str(output)]
    failed = lab(*told, "--fail-fast", cwd=tmp_path)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "1 run not started" in failed.stdout
    folders = [RunFolder(path.parent) for path in sorted(output.glob("runs/*/run.json"))]
    assert [(each.status, each.info["diverged"], each.info["attempts"]) for each in folders] == [
        ("FAILED", True, 1)
    ]
    kept = lab(*told, "--keep-diverged", cwd=tmp_path)
    assert kept.returncode == 0, kept.stdout + kept.stderr
    folders = [RunFolder(path.parent) for path in sorted(output.glob("runs/*/run.json"))]
    assert sorted(each.info["attempts"] for each in folders) == [1, 1]
    alone = lab(*told, "--retry-failed", "never", cwd=tmp_path)
    assert alone.returncode == 1
    failed_runs = sum(each.status == "FAILED" for each in folders)
    assert f"{failed_runs} failed and left alone" in alone.stdout
    assert sorted(each.info["attempts"] for each in folders) == [1, 1]


@pytest.mark.slow
def test_failed_run_is_tried_again_so_often(output: Path, tmp_path: Path) -> None:
    """Its first attempts find a file where the run's samples are to be."""
    told = ["sweep", "seed=0", "algo=grpo", *TINY, "--jobs", "1", "--no-report", "-o", str(output)]
    plugin = tmp_path / "flaky.py"
    plugin.write_text(
        "from pathlib import Path\n"
        "import cppo_lab.training.update as update\n"
        f"tries = Path({str(tmp_path / 'tries')!r})\n"
        "learn = update.Learner.learn\n"
        "def flaky(self, *arguments):\n"
        "    count = len(tries.read_text()) if tries.exists() else 0\n"
        "    if count < 2:\n"
        "        tries.write_text('x' * (count + 1))\n"
        "        raise MemoryError('out of memory')\n"
        "    return learn(self, *arguments)\n"
        "update.Learner.learn = flaky\n"
    )
    once = lab(*told, "--retry-failed", "1", "--plugins", str(plugin), cwd=tmp_path)
    assert once.returncode == 1, once.stdout + once.stderr
    assert "out of memory" in once.stdout
    (tmp_path / "tries").unlink()
    twice = lab(*told, "--retry-failed", "2", "--plugins", str(plugin), cwd=tmp_path)
    assert twice.returncode == 0, twice.stdout + twice.stderr


def test_a_worker_that_dies_changes_no_run_that_another_process_trains_or_has_finished(
    tmp_path: Path,
) -> None:
    config = compose_run([f"paths.output='{tmp_path}'"])
    folder = written_run(config, status="FINISHED")
    job = Job(folder.path.name, "run", config)
    fail_run(job, "its process died")
    assert folder.status == "FINISHED"
    folder.update_info(status="RUNNING")
    with FileLock(folder.path / LOCK_FILE):
        fail_run(job, "its process died")
        assert folder.status == "RUNNING"
    fail_run(job, "its process died")
    assert (folder.status, folder.info["reason"]) == ("FAILED", "its process died")

"""Real processes that are really killed: nothing is lost, nothing is left running, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from tiny_runs import TINY, lab, one_run_folder, same_weights, start_lab, wait_for

from cppo_lab.models.loading import load_policy
from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.tracking.store_address import tracking_uri

pytestmark = pytest.mark.slow

# Long enough to be hit in the middle.
LONGER = (*TINY, "trainer.steps=8", "trainer.epochs=4")


def weights_of(folder: RunFolder) -> dict[str, object]:
    found: dict[str, object] = load_policy(str(folder.checkpoints()[-1][1])).network.state_dict()
    return found


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def some_metrics(output: Path) -> list[Path]:
    return sorted(output.glob("runs/*/metrics.jsonl"))


@pytest.mark.parametrize("overrides", [[], ["trainer.staleness=1"]], ids=["on time", "stale"])
def test_killed_training_goes_on_to_the_same_bits(overrides: list[str], output: Path, tmp_path: Path) -> None:
    arguments = ["train", *LONGER, *overrides]
    whole_output = tmp_path / "whole"
    whole_output.mkdir()
    (whole_output / "policies").symlink_to(output / "policies")
    assert lab(*arguments, "-o", str(whole_output), cwd=tmp_path).returncode == 0
    whole = RunFolder(one_run_folder(whole_output))
    for wanted in (3, 6):
        process = start_lab(*arguments, "-o", str(output), cwd=tmp_path)
        wait_for(lambda: any(lines(p) >= wanted for p in some_metrics(output)), process)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed = RunFolder(one_run_folder(output))
        assert killed.status == "RUNNING", "nobody was there to say otherwise"
        assert len(killed.rows("metrics.jsonl")) < 9
    done = lab(*arguments, "-o", str(output), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert killed.status == "FINISHED"
    assert killed.info["attempts"] == 3
    for name in ("metrics.jsonl", "profiles.jsonl", "agreement.jsonl", "masked_tokens.json"):
        assert (killed.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert same_weights(weights_of(killed), weights_of(whole))  # type: ignore[arg-type]
    samples = [sorted(p.name for p in (f.path / "samples").iterdir()) for f in (killed, whole)]
    assert samples[0] == samples[1]
    assert not [p for p in killed.path.rglob(".*") if p.name not in (".lock",)], (
        "no half-written file is left"
    )


SWEEP = ("sweep", "algo=grpo,cppo", "seed=0,1", "--jobs", "2", "--no-report")


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes that do runs below a sweep, and those that grade for them, without Python's resource trackers."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def steps_logged(output: Path) -> int:
    return sum(lines(path) for path in some_metrics(output))


def test_killed_sweep_leaves_no_orphan_and_the_second_call_finishes_it(output: Path, tmp_path: Path) -> None:
    arguments = [*SWEEP, *LONGER, "-o", str(output)]
    process = start_lab(*arguments, cwd=tmp_path)
    wait_for(lambda: len(some_metrics(output)) == 2 and steps_logged(output) >= 6, process)
    workers = workers_of(process.pid)
    assert sum(worker.ppid() == process.pid for worker in workers) == 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert alive == [], "workers end themselves when their parent is gone"
    before = steps_logged(output)
    done = lab(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = [RunFolder(path.parent) for path in some_metrics(output)]
    assert len(folders) == 4
    assert {folder.status for folder in folders} == {"FINISHED"}
    assert all([row["step"] for row in f.rows("metrics.jsonl")] == list(range(9)) for f in folders)
    assert before < steps_logged(output)
    assert sorted(f.info["attempts"] for f in folders) == [1, 1, 2, 2]


def test_killed_worker_fails_its_own_run_alone(output: Path, tmp_path: Path) -> None:
    arguments = [*SWEEP, *LONGER, "-o", str(output)]
    process = start_lab(*arguments, cwd=tmp_path)
    wait_for(lambda: len(some_metrics(output)) == 2 and steps_logged(output) >= 4, process)
    victim = next(worker for worker in workers_of(process.pid) if worker.ppid() == process.pid)
    victim.send_signal(signal.SIGKILL)
    printed = process.communicate(timeout=240)[0]
    assert process.returncode == 1, printed
    folders = [RunFolder(path.parent) for path in some_metrics(output)]
    assert sorted(str(folder.status) for folder in folders) == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    (failed,) = (folder for folder in folders if folder.status == "FAILED")
    assert "signal 9" in failed.info["reason"]
    assert "signal 9" in printed
    assert failed.path.name in printed
    again = lab(*arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert failed.status == "FINISHED"


@pytest.mark.parametrize(
    ("command", "number"),
    [("train", signal.SIGINT), ("sweep", signal.SIGINT), ("sweep", signal.SIGTERM)],
)
def test_interrupt_ends_with_130_and_says_how_to_go_on(
    command: str, number: signal.Signals, output: Path, tmp_path: Path
) -> None:
    arguments = [*(["train"] if command == "train" else SWEEP), *LONGER, "-o", str(output)]
    process = start_lab(*arguments, cwd=tmp_path)
    expected = 1 if command == "train" else 2
    wait_for(lambda: len(some_metrics(output)) == expected and steps_logged(output) >= 3 * expected, process)
    workers = workers_of(process.pid)
    # A terminal sends its interrupt, and a cluster its termination, to the whole group.
    os.killpg(process.pid, number)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    assert "run the same command" in printed.lower()
    assert "Traceback" not in printed
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert alive == []
    folders = [RunFolder(path.parent) for path in some_metrics(output)]
    assert {folder.status for folder in folders} == {"INTERRUPTED"}
    done = lab(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {RunFolder(p.parent).status for p in some_metrics(output)} == {"FINISHED"}


def test_interrupted_hydra_multirun_leaves_nothing_running_in_the_store(output: Path, tmp_path: Path) -> None:
    longer = [override for override in LONGER if override != "tracking=none"]
    arguments = ["sweep", "seed=0,1", *longer, "hydra/launcher=basic", "--no-report", "-o", str(output)]
    process = start_lab(*arguments, cwd=tmp_path)
    wait_for(lambda: steps_logged(output) >= 3, process)
    os.killpg(process.pid, signal.SIGINT)
    printed = process.communicate(timeout=90)[0]
    assert process.returncode == 130, printed
    assert {RunFolder(path.parent).status for path in some_metrics(output)} == {"INTERRUPTED"}
    client = MlflowClient(tracking_uri(None, output))
    experiment = client.get_experiment_by_name("cppo-lab")
    assert experiment is not None
    states = {
        run.data.tags["cppo_lab.kind"]: run.info.status
        for run in client.search_runs([experiment.experiment_id])
    }
    assert states == {"sweep": "KILLED", "run": "KILLED"}


def test_starting_policy_killed_while_being_made_is_made_again(tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["train", *TINY, "trainer.steps=1", "-o", str(output)]
    process = start_lab(*arguments, cwd=tmp_path)
    wait_for(lambda: any(output.glob("policies/*.lock")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(output.glob("policies/*/recipe.json"))
    assert lab(*arguments, cwd=tmp_path).returncode == 0
    recipes = list(output.glob("policies/*/recipe.json"))
    assert len(recipes) == 1
    assert json.loads(recipes[0].read_text(encoding="utf-8"))["parameters"] > 0

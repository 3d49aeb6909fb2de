"""Sweeps by Ray on this machine: the same runs bit for bit, whoever is killed, and no process left."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.ray
pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

from elsewhere import (  # noqa: E402
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
from tiny_runs import lab  # noqa: E402

HERE = ("executor=ray", "executor.poll_s=0.2")


def test_a_killed_worker_is_replaced(expected: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(output, *HERE)
    (worker, *_) = [each for each in holders(output) if each.pid != process.pid]
    worker.kill()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "lost " in said
    assert_every_run_once(output, expected)
    assert max(folder.info["attempts"] for folder in folders(output).values()) == 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_takes_ray_with_it_and_is_started_again(
    how: signal.Signals, expected: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start(output, *HERE, FEW)
    below = processes_below(process.pid, lambda line: "ray" in line)
    assert below
    end(process, how)
    # Its agents notice after a while that their node is gone.
    _, alive = psutil.wait_procs(below, timeout=240)
    assert not alive
    deadline = time.monotonic() + 60
    while holders(output):
        assert time.monotonic() < deadline, "a worker went on"
        time.sleep(0.2)
    assert swept(output, *HERE, FEW).returncode == 0
    assert_every_run_once(output, expected, 4)


def test_what_ray_has_no_room_for_is_refused(tmp_path: Path) -> None:
    done = lab(*arguments(tmp_path, *HERE, "executor.gpus=0.5"), cwd=tmp_path)
    assert done.returncode == 2
    assert "executor.gpus=0.5: Ray has 0 in all, so no run would ever start." in done.stderr
    assert "Traceback" not in done.stderr

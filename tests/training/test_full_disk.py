"""A disk that fills up while a run trains."""

from __future__ import annotations

import errno
import re
import subprocess
from pathlib import Path

import pytest
from tiny_runs import TINY, lab, one_run_folder

from cppo_lab.files import full_disk, writing
from cppo_lab.tracking.run_folder import RunFolder

STEPS = 6


def train(output: Path) -> subprocess.CompletedProcess[str]:
    return lab("train", *TINY, f"trainer.steps={STEPS}", f"paths.output='{output}'", cwd=output)


def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(small_disk: Path, output: Path) -> None:
    stopped = train(small_disk)
    assert stopped.returncode == 1, stopped.stderr
    assert re.search(
        r"/(checkpoints/step_\d+|metrics\.jsonl|run\.json): there is no room left", stopped.stderr
    )
    assert re.search(r"\(\d\.\d MiB are free, and a checkpoint takes about 1\.\d MiB\)", stopped.stderr)
    assert "Traceback" not in stopped.stderr
    run = RunFolder(one_run_folder(small_disk))
    assert run.present_status in ("FAILED", "INTERRUPTED")
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk.parent)], check=True)
    for where in (small_disk, output):
        done = train(where)
        assert done.returncode == 0, done.stderr
    assert run.rows("metrics.jsonl") == RunFolder(one_run_folder(output)).rows("metrics.jsonl")


def test_a_full_disk_is_known_by_its_error_whoever_raised_it(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    foreign = RuntimeError("IoError: No space left on device (os error 28)")
    wrapped = RuntimeError("the checkpoint was not written")
    wrapped.__cause__ = full
    for error in (full, foreign, wrapped):
        assert "there is no room left" in str(full_disk(error, tmp_path))
    assert full_disk(FileNotFoundError("config.yaml"), tmp_path) is None


def test_a_full_disk_is_said_with_the_file_that_found_no_room(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(OSError, match="No space left") as caught, writing(path):
        raise RuntimeError("IoError: No space left on device (os error 28)")
    assert str(full_disk(caught.value, tmp_path, 3 << 20)).startswith(
        f"{path}: there is no room left on its disk"
    )
    assert "a checkpoint takes about 3.0 MiB" in str(full_disk(caught.value, tmp_path, 3 << 20))
    with pytest.raises(RuntimeError, match="shape"), writing(path):
        raise RuntimeError("another shape")


@pytest.mark.parametrize(("free", "is_full"), [(0, True), (1 << 30, False)])
def test_an_error_on_a_disk_without_room_is_one_of_the_disk(
    free: int, is_full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What PyTorch's writer raises names no cause.
    monkeypatch.setattr("cppo_lab.files.free_bytes", lambda _path: free)
    error = RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")
    assert (full_disk(error, tmp_path) is not None) is is_full

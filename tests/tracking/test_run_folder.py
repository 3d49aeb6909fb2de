"""The run folder: readable at any moment, whatever was cut off in the middle of a write."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.training.checkpoint import write_folder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.create({"a": {"b": (1, 2.5)}, "path": Path("x/y"), "none": None})
    return made


def test_configuration_is_written_as_plain_yaml(folder: RunFolder) -> None:
    content = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
    assert content == {"a": {"b": [1, 2.5]}, "path": "x/y", "none": None}


def test_half_written_last_line_is_left_out_and_the_rest_is_read(folder: RunFolder) -> None:
    for step in range(3):
        folder.append("metrics.jsonl", {"step": step, "x": step / 2})
    path = folder.path / "metrics.jsonl"
    whole = path.read_text(encoding="utf-8")
    for cut in range(1, len(whole.splitlines()[-1]) + 1):
        path.write_text(whole[:-cut], encoding="utf-8")
        assert [row["step"] for row in folder.rows("metrics.jsonl")] == [0, 1]


def test_missing_log_has_no_rows(folder: RunFolder) -> None:
    assert folder.rows("metrics.jsonl") == []


def test_non_finite_values_are_null_in_strict_json(folder: RunFolder) -> None:
    folder.append("metrics.jsonl", {"step": 1, "a": math.nan, "b": math.inf, "c": [-math.inf, 1.0]})
    text = (folder.path / "metrics.jsonl").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "a": None, "b": None, "c": [None, 1.0]}


def test_rewind_cuts_every_log_samples_and_best_checkpoints_back_to_the_step(folder: RunFolder) -> None:
    for log in ("metrics.jsonl", "timings.jsonl", "profiles.jsonl"):
        for step in range(5):
            folder.append(log, {"step": step, "x": 0.1 * step})
        with (folder.path / log).open("a", encoding="utf-8") as file:
            file.write('{"step": 5, "x"')
    for step in range(5):
        folder.write_samples(step, [{"completion": "é\u2028"}])
    for name in ("best_step_000001", "best_step_000004", "step_000002"):
        (folder.path / "checkpoints" / name).mkdir()
    before = (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:3]
    gone = subprocess.Popen(["true"])
    gone.wait()
    scratch = [
        folder.path / f".run.json.{gone.pid}",
        folder.path / "samples" / f".step_000002.jsonl.{gone.pid}",
    ]
    used = folder.path / f".mlflow.json.{os.getppid()}"
    used.write_text("{", encoding="utf-8")
    for path in scratch:
        path.write_text("{", encoding="utf-8")
    folder.rewind(2)
    assert not any(path.exists() for path in scratch)
    assert used.exists(), "another process is writing it"
    assert (folder.path / "metrics.jsonl").read_text(encoding="utf-8") == "".join(before), "to the byte"
    for log in ("metrics.jsonl", "timings.jsonl", "profiles.jsonl"):
        assert [row["step"] for row in folder.rows(log)] == [0, 1, 2]
    assert sorted(p.name for p in (folder.path / "samples").iterdir()) == [
        f"step_{step:06d}.jsonl" for step in range(3)
    ]
    assert [step for step, _ in folder.checkpoints("best_step_")] == [1]
    assert [step for step, _ in folder.checkpoints()] == [2]


def test_line_appended_after_a_rewind_follows_without_a_seam(folder: RunFolder) -> None:
    folder.append("metrics.jsonl", {"step": 1})
    with (folder.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    folder.rewind(1)
    folder.append("metrics.jsonl", {"step": 2})
    assert [row["step"] for row in folder.rows("metrics.jsonl")] == [1, 2]


def test_information_is_merged_and_replaced_in_one_go(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.update_info(status="RUNNING", steps=3)
    folder.update_info(status="FINISHED")
    assert folder.info == {"status": "FINISHED", "steps": 3}

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.update_info(status="FAILED", reason="x" * 10_000)
    assert folder.info == {"status": "FINISHED", "steps": 3}, "the old content, whole"


def test_status_of_a_folder_that_never_started_is_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "absent").status is None
    assert not (tmp_path / "absent").exists()


def test_checkpoint_folder_appears_whole_or_not_at_all(folder: RunFolder) -> None:
    target = folder.path / "checkpoints" / "step_000004"

    def breaks(scratch: Path) -> None:
        (scratch / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder(target, breaks)
    assert not target.exists()
    assert folder.checkpoints() == []
    write_folder(target, lambda scratch: (scratch / "model.safetensors").write_bytes(b"whole") and None)
    assert [step for step, _ in folder.checkpoints()] == [4]
    folder.drop_checkpoints_before(4)
    assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["step_000004"], (
        "what the broken write left is gone"
    )


def test_best_checkpoints_stay_as_long_as_a_checkpoint_to_go_on_from_needs_them(folder: RunFolder) -> None:
    names = {
        "best_step_000001",
        "best_step_000002",
        "best_step_000003",
        "best_step_000005",
        "step_000002",
        "step_000004",
    }
    for name in names:
        (folder.path / "checkpoints" / name).mkdir()
    folder.drop_superseded_bests()
    left = {path.name for path in (folder.path / "checkpoints").iterdir()}
    assert left == names - {"best_step_000001"}
    folder.drop_checkpoints_before(4)
    folder.drop_superseded_bests()
    assert [step for step, _ in folder.checkpoints("best_step_")] == [3, 5]


def test_dropping_checkpoints_leaves_the_best_one(folder: RunFolder) -> None:
    for name in ("best_step_000001", "step_000002", "step_000004"):
        (folder.path / "checkpoints" / name).mkdir()
    folder.drop_checkpoints_before(4)
    assert sorted(path.name for path in (folder.path / "checkpoints").iterdir()) == [
        "best_step_000001",
        "step_000004",
    ]

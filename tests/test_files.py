"""Files that every part reads and writes: whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import clean_environment

from cppo_lab.errors import UserError
from cppo_lab.files import (
    file_sha256,
    json_lines,
    read_log,
    read_object,
    remove_folder,
    sweep_scratch,
    write_atomically,
)


def test_atomic_write_leaves_no_other_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "one")
    write_atomically(tmp_path / "a.txt", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "two"


def test_what_a_kill_left_of_an_atomic_write_is_removed_and_nothing_else(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    kept = {".lock", "masked_tokens.json", "a.1", f".masked_tokens.json.{os.getppid()}", ".folder"}
    for name in (f".masked_tokens.json.{gone.pid}", *kept - {".folder"}):
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / ".folder").mkdir()
    sweep_scratch(tmp_path)
    sweep_scratch(tmp_path / "not there")
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_folder_that_is_being_removed_when_its_process_is_killed_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "step_000002"
    folder.mkdir()
    (folder / "model.safetensors").write_text("", encoding="utf-8")
    code = (
        f"from pathlib import Path; from cppo_lab.files import remove_folder as r; r(Path({str(folder)!r}))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(CPPO_LAB_FAILPOINT="folder-hidden"), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    sweep_scratch(tmp_path)
    assert list(tmp_path.iterdir()) == []
    remove_folder(folder)


def test_only_a_newline_ends_a_row_of_json_lines() -> None:
    assert json_lines('{"a": "x\u2028y"}\r\n\n{"a": "z"}') == [{"a": "x\u2028y"}, {"a": "z"}]


def test_log_that_is_still_being_written_is_read_up_to_its_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_log(path) == []
    path.write_text('{"a": 1}\n{"a"', encoding="utf-8")
    assert read_log(path) == [{"a": 1}]


def test_file_that_is_no_json_object_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert read_object(path) == {}
    for text in ("[1]", "{"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"run\.json: is not a JSON object"):
            read_object(path)


def test_hash_of_a_file_follows_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"one")
    first = file_sha256(path)
    path.write_bytes(b"three")
    assert file_sha256(path) != first

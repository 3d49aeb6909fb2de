"""What a run is called and where it lies: the hash of everything that determines its result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cppo_lab.config import PretrainedModel, RunConfig
from cppo_lab.runs.folder import RunFolder

RESULT_VERSION = 1
"""Raised whenever the same configuration would no longer give the same bits."""

# Keys that say where and how often something is written, never what is computed.
_INERT = (("paths",), ("tracking",), ("trainer", "checkpoint_every"), ("trainer", "samples_per_step"))


def digest(content: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_hashes(config: RunConfig) -> list[str]:
    """SHA-256 of every local file the run reads, by role: training data, held-out data, a local model's files."""
    paths = [
        Path(p) for p in (getattr(config.task, "path", None), getattr(config.task, "heldout_path", None)) if p
    ]
    if isinstance(config.model, PretrainedModel) and Path(config.model.path).is_dir():
        paths += sorted(
            p for p in Path(config.model.path).iterdir() if p.suffix in (".safetensors", ".bin", ".json")
        )
    return [file_sha256(path) for path in paths if path.is_file()]


def resolved_device(device: str) -> str:
    """`auto` is CUDA where there is one, else the CPU."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def run_id(config: RunConfig) -> str:
    """The identity of the run that `config` describes: 12 hexadecimal digits."""
    content = config.model_dump(mode="python")
    for path in _INERT:
        holder = content
        for key in path[:-1]:
            holder = holder[key]
        holder.pop(path[-1])
    content["trainer"]["device"] = resolved_device(config.trainer.device)
    # The path of an input file does not matter, its bytes do.
    for key in ("path", "heldout_path"):
        if content["task"].get(key):
            content["task"][key] = "file"
    return digest({"version": RESULT_VERSION, "config": content, "inputs": input_hashes(config)})


def run_folder(config: RunConfig) -> RunFolder:
    """The folder of the run that `config` describes."""
    return RunFolder(config.paths.output / "runs" / f"{config.algo.name}-{run_id(config)}")


def starting_policy_id(config: RunConfig) -> str:
    """The identity of the starting policy: model, task and warm-up recipe, and the bytes they read."""
    task = config.task.model_dump()
    for key in ("path", "heldout_path"):
        if task.get(key):
            task[key] = "file"
    content = {
        "version": RESULT_VERSION,
        "model": config.model.model_dump(),
        "warmup": config.warmup.model_dump(),
        "task": task,
        "device": resolved_device(config.trainer.device),
        "threads": config.trainer.threads,
        "inputs": input_hashes(config),
    }
    return digest(content)

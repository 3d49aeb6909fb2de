"""The device that a model is on, and how much memory it has."""

from __future__ import annotations

import functools
import os
from importlib import metadata

from cppo_lab.errors import UserError


def resolved_device(device: str) -> str:
    """`auto` is CUDA where there is a GPU, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if has_cuda() else "cpu"


def has_cuda() -> bool:
    """Whether there is a GPU that PyTorch can use."""
    if _is_cpu_build():
        return False
    import torch

    return torch.cuda.is_available()


@functools.cache
def _is_cpu_build() -> bool:
    # Importing torch takes over a second, and a build for CPUs says so in its version.
    return metadata.version("torch").endswith("+cpu")


def check_device(key: str, device: str) -> None:
    """Raise UserError for a device that this machine does not have; `key` is the setting that asks for it."""
    if device == "cuda" and not has_cuda():
        raise UserError(f"{key}=cuda: this machine has no CUDA device; allowed are cpu and auto.")


def device_bytes(device: str) -> int:
    """The device's whole memory."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

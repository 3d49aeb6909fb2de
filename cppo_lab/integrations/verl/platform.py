"""verl's interface to a platform, for machines without accelerators; chosen by VERL_PLATFORM=cpu alone."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

_MEMORY = 1 << 34
"""What verl is told of a CPU's memory, which it asks for in order to log it."""


def _device_module() -> types.ModuleType:
    """torch.cpu, with the questions that verl asks of torch.cuda."""
    module = types.ModuleType("cppo_lab_cpu_device")
    for name in ("current_device", "device_count", "is_available", "synchronize", "set_device"):
        setattr(module, name, getattr(torch.cpu, name))
    for name in ("stream", "Stream", "current_stream"):
        setattr(module, name, getattr(torch.cpu, name))
    for name in ("empty_cache", "ipc_collect", "reset_peak_memory_stats"):
        setattr(module, name, lambda *_args, **_options: None)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, lambda *_args, **_options: 0)
    answers: dict[str, Any] = {
        "mem_get_info": lambda *_args: (_MEMORY // 2, _MEMORY),
        "get_device_name": lambda *_args: "cpu",
        "get_device_properties": lambda *_args: types.SimpleNamespace(name="cpu", total_memory=_MEMORY),
        "manual_seed": torch.manual_seed,
        "manual_seed_all": torch.manual_seed,
        "get_rng_state": lambda *_args: torch.get_rng_state(),
        "set_rng_state": lambda state, *_args: torch.set_rng_state(state),
    }
    for name, answer in answers.items():
        setattr(module, name, answer)
    return module


_DEVICE = _device_module()


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """One process is one device. verl counts devices by Ray's GPUs, which are logical here."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return _DEVICE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """Never found by itself: a machine with GPUs has CPUs too."""
        return False

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return

    def synchronize(self, device_index: int | None = None) -> None:
        return

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return

    def empty_cache(self) -> None:
        return

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return (None, None)

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CPPO_LAB_VISIBLE_CPUS"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return

    def profiler_stop(self) -> None:
        return

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None

"""Keeps the global state that vLLM changes apart from that of the training process."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ENVIRONMENT: dict[str, str | None] = {
    # The engine core in this process: weights are handed over by reference, and nothing outlives the run.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    # In whole GiB, and it would override the size that is given.
    "VLLM_CPU_KVCACHE_SPACE": None,
}
# Defaults that a user's environment overrides: errors become sentences of the lab, with vLLM's own as their cause.
_QUIET = {"VLLM_LOGGING_LEVEL": "CRITICAL", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
# The functions that vLLM replaces.
_REPLACED: tuple[tuple[ModuleType, str], ...] = (
    (sys, "excepthook"),
    (torch, "set_num_threads"),
    (torch.accelerator, "synchronize"),
    (torch.accelerator, "empty_cache"),
    (torch.accelerator, "get_memory_info"),
)
_Functions = dict[tuple[ModuleType, str], Callable[..., Any] | None]


def _functions() -> _Functions:
    return {(module, name): getattr(module, name, None) for module, name in _REPLACED}


def _put(functions: _Functions) -> None:
    for (module, name), function in functions.items():
        if function is not None:
            setattr(module, name, function)
        elif hasattr(module, name):
            delattr(module, name)


@dataclass(frozen=True)
class _ProcessState:
    """The global state that vLLM changes: environment, random number generators, threads, functions of PyTorch."""

    environment: dict[str, str]
    functions: _Functions
    threads: int
    python_draws: Any
    numpy_draws: Any
    torch_draws: Tensor
    cuda_draws: list[Tensor]

    @staticmethod
    def now() -> _ProcessState:
        return _ProcessState(
            environment=dict(os.environ),
            functions=_functions(),
            threads=torch.get_num_threads(),
            python_draws=random.getstate(),
            numpy_draws=np.random.get_state(),
            torch_draws=torch.get_rng_state(),
            cuda_draws=torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        )

    def restore(self) -> None:
        for name in os.environ.keys() - self.environment.keys():
            del os.environ[name]
        os.environ.update(self.environment)
        _put(self.functions)
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        random.setstate(self.python_draws)
        np.random.set_state(self.numpy_draws)
        torch.set_rng_state(self.torch_draws)
        if self.cuda_draws:
            torch.cuda.set_rng_state_all(self.cuda_draws)


class Isolation:
    """vLLM's own global state: in place during calls into vLLM, and replaced by the caller's afterwards."""

    def __init__(self) -> None:
        self._environment: dict[str, str | None] = _ENVIRONMENT | {
            key: os.environ.get(key, usual) for key, usual in _QUIET.items()
        }
        self._functions: _Functions = {}

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The context of every call into vLLM."""
        outer = _ProcessState.now()
        try:
            for name, value in self._environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            _put(self._functions)
            # Without Triton, as on a CPU, PyTorch warns once.
            logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            names = outer.environment.keys() | os.environ.keys()
            inner = {name: os.environ.get(name) for name in names}
            self._environment = {k: v for k, v in inner.items() if v != outer.environment.get(k)}
            self._functions = _functions()
            outer.restore()

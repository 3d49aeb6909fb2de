"""A trainer's state as tensors (safetensors) and plain data (JSON): reading it runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cppo_lab.errors import UserError

TENSORS_FILE = "trainer.safetensors"
PLAIN_FILE = "trainer.json"
PICKLED_FILE = "trainer.pt"
"""What earlier versions wrote, and this one does not read."""

_TENSOR, _TUPLE, _ITEMS = "__tensor__", "__tuple__", "__items__"


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a state of nested mappings, lists, tuples, tensors, strings, numbers and None.

    Raises TypeError for anything else.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    plain = _plain(state, tensors)
    save_file(tensors, folder / TENSORS_FILE)
    (folder / PLAIN_FILE).write_text(json.dumps(plain), encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """The state that `write_state` wrote, each tensor on its device.

    Raises UserError where an earlier version wrote it, or it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (folder / PICKLED_FILE).exists() and not (folder / PLAIN_FILE).exists():
        raise UserError(
            f"{folder / PICKLED_FILE}: an earlier version of the lab wrote this checkpoint with pickle, which can hold "
            f"code and is not read; finish the run with that version, or remove {folder.parents[1]} to start it anew."
        )
    try:
        tensors = load_file(folder / TENSORS_FILE)
        plain = json.loads((folder / PLAIN_FILE).read_text(encoding="utf-8"))
        state = _restored(plain, tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{folder}: its trainer state cannot be read ({error}).") from error
    assert isinstance(state, dict)
    return state


def _plain(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # A view is saved alone, without what it is a view of.
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {_TENSOR: name, "device": str(value.device)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _plain(item, tensors) for key, item in value.items()}
        return {_ITEMS: [[_plain(key, tensors), _plain(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_plain(item, tensors) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"a trainer's state cannot hold a {type(value).__name__}")


def _restored(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]].to(value["device"])
    if _TUPLE in value:
        return tuple(_restored(item, tensors) for item in value[_TUPLE])
    if _ITEMS in value:
        return {_restored(key, tensors): _restored(item, tensors) for key, item in value[_ITEMS]}
    return {key: _restored(item, tensors) for key, item in value.items()}

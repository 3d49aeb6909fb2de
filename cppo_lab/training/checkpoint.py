"""Checkpoints, written atomically."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from cppo_lab.errors import UserError
from cppo_lab.interrupts import interrupts_held
from cppo_lab.models.loading import Policy
from cppo_lab.models.lora import ADAPTER_FOLDER, has_adapter, plain_copy, save_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STATE_FILE = "trainer.pt"


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Create folder `path` atomically: `fill` a hidden temporary folder, then rename it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    fill(scratch)
    shutil.rmtree(path, ignore_errors=True)
    scratch.rename(path)


def save_checkpoint(path: Path, policy: Policy, state: dict[str, Any] | None = None) -> None:
    """Save the policy in Hugging Face format and, with `state`, the trainer state needed to resume.

    A policy with an adapter is saved as the plain model that it amounts to, with the adapter alone in a folder of it.
    """

    def fill(folder: Path) -> None:
        plain = plain_copy(policy.network) if has_adapter(policy.network) else policy.network
        cast("PreTrainedModel", plain).save_pretrained(folder)
        if has_adapter(policy.network):
            save_adapter(policy.network, folder / ADAPTER_FOLDER)
        policy.tokenizer.save_pretrained(folder)
        if state is not None:
            torch.save(state, folder / STATE_FILE)

    with interrupts_held():
        write_folder(path, fill)


def load_state(path: Path) -> dict[str, Any]:
    """The trainer state of a checkpoint folder. Only tensors and plain data are read, so that no code in it runs.

    Raises UserError for a file that holds anything else, as checkpoints of earlier versions do.
    """
    try:
        state: dict[str, Any] = torch.load(path / STATE_FILE, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path / STATE_FILE}: holds more than tensors and plain data, and is not loaded (an earlier version of "
            f"the lab wrote such checkpoints); remove {path.parents[1]} to start the run anew."
        ) from error
    return state

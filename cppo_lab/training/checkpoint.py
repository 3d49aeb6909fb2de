"""Checkpoints: complete or absent, never in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cppo_lab.interrupts import interrupts_held
from cppo_lab.models.loading import Policy

STATE_FILE = "trainer.pt"


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make folder `path` by `fill` under a hidden name, then rename it: it appears whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    fill(scratch)
    shutil.rmtree(path, ignore_errors=True)
    scratch.rename(path)


def save_checkpoint(path: Path, policy: Policy, state: dict[str, Any] | None = None) -> None:
    """Save the policy in Hugging Face format and, with `state`, what the trainer needs to go on."""

    def fill(folder: Path) -> None:
        policy.network.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        if state is not None:
            torch.save(state, folder / STATE_FILE)

    with interrupts_held():
        write_folder(path, fill)


def load_state(path: Path) -> dict[str, Any]:
    """The trainer state of a checkpoint folder."""
    # Rollouts waiting in the state are dataclasses of the lab's own, written by the same user.
    state: dict[str, Any] = torch.load(path / STATE_FILE, weights_only=False)
    return state

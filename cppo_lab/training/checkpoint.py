"""Checkpoints, written atomically, with the hashes of their files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cppo_lab.failpoints import failpoint
from cppo_lab.files import flush, remove_folder, sweep_scratch, writing
from cppo_lab.interrupts import interrupts_held
from cppo_lab.manifests import write_manifest
from cppo_lab.models.loading import Policy
from cppo_lab.models.lora import ADAPTER_FOLDER, has_adapter, plain_copy, save_adapter
from cppo_lab.tracking.integrity import checkpoint_problem
from cppo_lab.training.state_file import write_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from cppo_lab.tracking.run_folder import RunFolder


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Create folder `path` atomically: `fill` a hidden temporary folder, list its files' hashes, then rename it.

    Nobody else may write `path` meanwhile.
    """
    sweep_scratch(path.parent, path.name)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        with writing(path):
            fill(scratch)
            write_manifest(scratch)
            for each in (*scratch.rglob("*"), scratch):
                flush(each)
    except Exception:
        # It may be what fills the disk.
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    failpoint("checkpoint-filled")
    shutil.rmtree(path, ignore_errors=True)
    failpoint("checkpoint-removed")
    scratch.rename(path)
    flush(path.parent)


def save_checkpoint(
    path: Path,
    policy: Policy,
    state: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Save the policy in Hugging Face format; with `state`, the trainer state needed to resume; and further `texts`.

    A policy with an adapter is saved as the plain model that it amounts to, with the adapter alone in a folder of it.
    """

    def fill(folder: Path) -> None:
        plain = plain_copy(policy.network) if has_adapter(policy.network) else policy.network
        cast("PreTrainedModel", plain).save_pretrained(folder)
        if has_adapter(policy.network):
            save_adapter(policy.network, folder / ADAPTER_FOLDER)
        policy.tokenizer.save_pretrained(folder)
        if state is not None:
            write_state(folder, state)
        for name, text in (texts or {}).items():
            (folder / name).write_text(text, encoding="utf-8")

    with interrupts_held():
        write_folder(path, fill)


def drop_damaged(folder: RunFolder) -> list[str]:
    """Remove the checkpoints of a run that are not as they were written, newest first, up to one that is.

    Returns what was found, a sentence for each, which run.json has before anything is removed.
    """
    said, damaged = [], []
    found = folder.checkpoints()
    for place in reversed(range(len(found))):
        step, path = found[place]
        problem = checkpoint_problem(path)
        if problem is None:
            break
        again = f"checkpoint {found[place - 1][1].name}" if place else "the start"
        damaged.append(path)
        said.append(
            f"Checkpoint {path.name} was damaged ({problem[0]}: {problem[1]}): the run went on from {again}, not from "
            f"step {step}."
        )
    if said:
        folder.update_info(damaged=[*folder.info.get("damaged", []), *said])
    for path in damaged:
        remove_folder(path)
    return said

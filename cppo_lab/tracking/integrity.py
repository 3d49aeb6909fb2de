"""Whether a run's record is what the run wrote, and how a damaged one is made good: by training again.

A checkpoint claims the logs and samples up to its step by their hashes; a finished run lists its files in a manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from cppo_lab.errors import UserError
from cppo_lab.files import file_sha256, remove_folder, write_atomically
from cppo_lab.manifests import MANIFEST_FILE, manifest_problem, sealed_text
from cppo_lab.tracking.run_folder import LOCK_FILE, LOGS, MASKED_TOKENS, RunFolder

REMEDY = "--repair trains it again from its last good checkpoint, or else from its start"
CLAIMS_FILE = "trainer.json"
"""The plain part of a checkpoint's state, whose keys `logs` and `samples` are the claims."""

_LOCK_PATIENCE_S = 5.0


def log_claims(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """The sizes and hashes of a run's logs as they are now."""
    return {
        name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for name in LOGS
        if (path := folder.path / name).exists()
    }


def claim_problem(
    folder: RunFolder, logs: Mapping[str, Mapping[str, Any]], samples: Mapping[str, str]
) -> str | None:
    """What of a checkpoint's claims does not hold, naming the file; None if all do.

    What was logged after the checkpoint does not matter.
    """
    for name, claim in logs.items():
        path = folder.path / name
        content = path.read_bytes()[: claim["bytes"]] if path.exists() else b""
        if len(content) < claim["bytes"]:
            return f"{path} is cut off or missing"
        if hashlib.sha256(content).hexdigest() != claim["sha256"]:
            return f"{path} holds other rows than were written"
    for name, expected in samples.items():
        path = folder.path / "samples" / name
        if not path.exists():
            return f"{path} is missing"
        if file_sha256(path) != expected:
            return f"{path} holds other samples than were written"
    return None


def write_run_manifest(folder: RunFolder, samples: Mapping[str, str]) -> None:
    """List the files of a finished run; `samples` are the hashes of its sample files, taken when they were written."""
    names = [*LOGS, MASKED_TOKENS, "config.yaml"]
    files = {
        name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for name in names
        if (path := folder.path / name).exists()
    }
    for name, sha256 in sorted(samples.items()):
        path = folder.path / "samples" / name
        files[f"samples/{name}"] = {"bytes": path.stat().st_size, "sha256": sha256}
    content: dict[str, Any] = {"files": files}
    write_atomically(folder.path / MANIFEST_FILE, sealed_text(content))


def damage(folder: RunFolder) -> str | None:
    """What of a run's record is not what the run wrote, naming the file; None if nothing is known to be."""
    try:
        status = folder.info.get("status")
    except UserError as error:
        return str(error).partition(": ")[0] + " is not what the run wrote"
    if status == "FINISHED":
        found = manifest_problem(folder.path)
        return None if found is None else f"{folder.path / found[0]}: {found[1]}"
    newest = next(filter(None, map(_claims, (path for _, path in reversed(folder.checkpoints())))), None)
    return None if newest is None else claim_problem(folder, newest["logs"], newest["samples"])


def forget_damaged(folder: RunFolder) -> str | None:
    """Make a damaged run one that goes on from its last good checkpoint, or else from its start.

    Returns what was damaged and where the run goes on; None if nothing was damaged. Raises UserError while a process
    trains it.
    """
    found = damage(folder)
    if found is None:
        return None
    try:
        with FileLock(folder.path / LOCK_FILE, timeout=_LOCK_PATIENCE_S):
            step, name, claims = _last_good(folder)
            # First, so that whoever is stopped in between leaves no finished run without its rows.
            try:
                folder.update_info(status="INTERRUPTED", reason=f"damaged: {found}", steps_done=max(step, 0))
            except UserError:
                (folder.path / "run.json").unlink()
            for number, path in folder.checkpoints():
                if number > step:
                    remove_folder(path)
            cut_back(folder, **claims)
            for each in (MASKED_TOKENS, MANIFEST_FILE):
                (folder.path / each).unlink(missing_ok=True)
    except TimeoutError as error:
        raise UserError(f"run {folder.path.name}: another process is training it.") from error
    return f"{found}; it is trained again from {name}"


def _claims(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint claims of the run's logs and samples; None for a damaged one, and for one without claims."""
    if checkpoint_problem(checkpoint) is not None or not (checkpoint / CLAIMS_FILE).exists():
        return None
    state = json.loads((checkpoint / CLAIMS_FILE).read_text(encoding="utf-8"))
    return {"logs": state.get("logs", {}), "samples": state.get("samples", {})}


def _last_good(folder: RunFolder) -> tuple[int, str, dict[str, Any]]:
    """The newest checkpoint that is whole and whose claims hold: its step, its name, its claims. -1 for the start."""
    for step, path in reversed(folder.checkpoints()):
        claims = _claims(path)
        if claims is not None and claim_problem(folder, **claims) is None:
            return step, f"checkpoint {path.name}", claims
    return -1, "its start", {"logs": {}, "samples": {}}


def cut_back(folder: RunFolder, logs: Mapping[str, Mapping[str, Any]], samples: Mapping[str, str]) -> None:
    """Remove what a run's logs and samples hold beyond the claims of a checkpoint, without reading it."""
    for name in LOGS:
        path = folder.path / name
        if name in logs:
            with path.open("rb+") as file:
                file.truncate(logs[name]["bytes"])
        else:
            path.unlink(missing_ok=True)
    for _, path in folder.sample_files():
        if path.name not in samples:
            path.unlink()


def checkpoint_problem(checkpoint: Path) -> tuple[str, str] | None:
    """The first file of a checkpoint that is not as it was written, and why; None if all are."""
    if (checkpoint / CLAIMS_FILE).exists() and not (checkpoint / MANIFEST_FILE).exists():
        return MANIFEST_FILE, "it is missing"
    return manifest_problem(checkpoint)

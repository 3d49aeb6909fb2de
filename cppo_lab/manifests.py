"""Hashes of what a result rests on: a manifest in a folder, and a seal in a JSON object. Standard library only.

A folder's `manifest.json` lists its files with their sizes and SHA-256; `check_manifest` finds what is not as it was
written. A sealed JSON object holds the SHA-256 of the rest of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.files import file_sha256, read_object

MANIFEST_FILE = "manifest.json"
SEAL = "sha256"


class Damaged(UserError):
    """A file is not what the lab wrote; the sentence names it and says what to do."""


def seal(content: Mapping[str, Any]) -> str:
    """The hash of a JSON object without its own seal."""
    rest = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether a JSON object is what was sealed. One without a seal, of an earlier version, is taken as it is."""
    return SEAL not in content or content[SEAL] == seal(content)


def sealed_text(content: Mapping[str, Any]) -> str:
    """The text of a JSON file that holds an object and its seal."""
    return json.dumps({**content, SEAL: seal(content)}, indent=2) + "\n"


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """The object of a JSON file without its seal; empty if there is no file.

    Raises Damaged, which ends with the `remedy`, if it is not what was sealed, and UserError if it is no JSON object.
    """
    found = read_object(path)
    if not is_intact(found):
        raise Damaged(f"{path}: is damaged (its own hash differs); {remedy}.")
    return {key: value for key, value in found.items() if key != SEAL}


def write_manifest(folder: Path) -> None:
    """List every file below a folder, which nobody else writes to."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_FILE
    }
    content = {"files": files}
    (folder / MANIFEST_FILE).write_text(sealed_text(content), encoding="utf-8")


def check_manifest(folder: Path, remedy: str) -> None:
    """Raise Damaged, which ends with the `remedy`, for a file that is not as the folder's manifest says.

    Files that the manifest does not list are left alone; so is a folder without one, which the lab did not write.
    """
    found = manifest_problem(folder)
    if found is not None:
        name, why = found
        raise Damaged(f"{folder / name}: is damaged ({why}); {remedy}.")


def manifest_problem(folder: Path) -> tuple[str, str] | None:
    """The first file of a folder that is not as its manifest says, and why; None if all are."""
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        files = content["files"]
        if not is_intact(content) or SEAL not in content:
            return MANIFEST_FILE, "its own hash differs"
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return MANIFEST_FILE, "it is not the JSON that was written"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return name, "it is missing"
        size = path.stat().st_size
        if size != expected["bytes"]:
            return name, f"it has {size} bytes, not {expected['bytes']}"
        if file_sha256(path) != expected["sha256"]:
            return name, "its hash differs"
    return None

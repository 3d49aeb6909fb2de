"""Frozen claims: `sweeps/frozen/NAME.json`, what a sweep claimed before the first of its test runs.

Written when a sweep that has claims and tuned settings is first run; its hashes tell later whether anything has changed
since. A frozen file is never rewritten but for the time of the first run.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.files import file_sha256, read_object, write_atomically
from cppo_lab.sweeps.sweep_file import SweepFile
from cppo_lab.sweeps.tuned_points import read_tuned

FOLDER = "frozen"
SHOWN = 12
"""Digits of a hash that are shown."""


@dataclass(frozen=True)
class Frozen:
    """Hashes (SHA-256) of a sweep's claims, its whole file and its tuned points, when they were frozen, and when the
    first run with a result began; times are in UTC.
    """

    sweep: str
    frozen_at: str
    claims_sha256: str
    file_sha256: str
    tuned: str
    tuned_sha256: str
    first_run_at: str | None = None


def frozen_file(file: SweepFile) -> Path | None:
    """Where the frozen claims of a sweep are; None for an ad-hoc sweep."""
    return None if file.path is None else file.path.parent / FOLDER / f"{file.slug}.json"


def read_frozen(file: SweepFile) -> Frozen | None:
    """The frozen claims of a sweep; None where none were frozen. Raises UserError for a damaged file."""
    path = frozen_file(file)
    if path is None or not path.is_file():
        return None
    try:
        return Frozen(**read_object(path))
    except TypeError as error:
        raise UserError(f"{path}: is no file of frozen claims ({error}); restore it.") from error


def freeze(file: SweepFile) -> Path | None:
    """Freeze the claims of a tuned sweep; the path of the new file, None where there is nothing to freeze or it is so.

    Raises UserError where the file cannot be written: nothing may run before its claims are frozen.
    """
    path = frozen_file(file)
    if path is None or path.is_file() or not file.claims or file.tuned is None:
        return None
    content = _as_it_is(file, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _text(content))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}), and claims are frozen before the first run; copy the sweep "
            "file to a folder of your own."
        ) from error
    return path


def note_first_run(file: SweepFile, started_at: str) -> None:
    """Write down when the first run began; an earlier time that is known stays."""
    path, known = frozen_file(file), read_frozen(file)
    if path is None or known is None or (known.first_run_at and known.first_run_at <= started_at):
        return
    write_atomically(path, _text(replace(known, first_run_at=started_at)))


def changes_since(file: SweepFile, frozen: Frozen) -> list[str]:
    """What has changed since the claims were frozen, in words; nothing, or a change that makes the claims new ones."""
    now = _as_it_is(file, frozen.frozen_at)
    found = []
    if now.claims_sha256 != frozen.claims_sha256:
        found.append("the claims")
    if (now.tuned, now.tuned_sha256) != (frozen.tuned, frozen.tuned_sha256):
        found.append("the tuned points")
    if now.file_sha256 != frozen.file_sha256 and "the claims" not in found:
        found.append("other parts of the sweep file")
    return found


def frozen_for_manifest(file: SweepFile) -> Mapping[str, Any]:
    """The frozen claims as a sweep's manifest holds them for the report; empty where none were frozen."""
    frozen = read_frozen(file)
    return {} if frozen is None else {**asdict(frozen), "changed": changes_since(file, frozen)}


def _as_it_is(file: SweepFile, time: str) -> Frozen:
    assert file.path is not None, "an ad-hoc sweep has no claims"
    claims = json.dumps(list(file.claims), sort_keys=True, default=str)
    return Frozen(
        sweep=file.slug,
        frozen_at=time,
        claims_sha256=hashlib.sha256(claims.encode()).hexdigest(),
        file_sha256=file_sha256(file.path),
        tuned=file.tuned or "",
        tuned_sha256=read_tuned(file.tuned, file.path).sha256 if file.tuned else "",
    )


def _text(frozen: Frozen) -> str:
    return json.dumps(asdict(frozen), indent=2) + "\n"

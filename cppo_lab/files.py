"""Files that every part reads and writes: JSON, JSON lines, and the hash of a file's bytes. Standard library only."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.failpoints import failpoint

_NO_ROOM_BYTES = 64 << 10
"""With less, an error that does not say so is taken for one of a full disk."""


def write_atomically(path: Path, text: str) -> None:
    """Replace the file's content; a reader or a crash sees the old or the new text, never a part."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path), scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    failpoint("file-written")
    scratch.replace(path)
    flush(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that whoever is stopped leaves it whole or gone: what is left has a hidden name.

    `sweep_scratch` removes it.
    """
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        path.rename(hidden)
    except FileNotFoundError:
        return
    failpoint("folder-hidden")
    shutil.rmtree(hidden)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk: a machine may lose its power."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sweep_scratch(folder: Path, name: str = "") -> None:
    """Remove the hidden temporary files and folders, `.NAME.PID`, that processes of this machine left which are gone.

    So are SQLite's companions of such a file, `.NAME.PID-journal`, which would change the next file of that name.
    """
    for path in folder.glob(f".{name}*.*"):
        owner = path.suffix[1:].partition("-")[0]
        if owner.isdigit() and int(owner) != os.getpid() and not _is_alive(int(owner)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def jsonable(value: Any) -> Any:
    """`value` with non-finite numbers as None, for strict JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: jsonable(item) for key, item in value.items()}
    return [jsonable(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is none. Raises UserError for one that is not a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"{path}: is not a JSON object, as this file must be; restore it, or remove {path.parent}."
        )
    return found


def json_lines(text: str) -> list[Any]:
    """The rows of JSON lines. Raises ValueError for a line that is not JSON."""
    # JSON may hold U+2028 and its like unescaped; only a newline ends a row.
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file that is still being written: a last line without its newline is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return json_lines(text[: text.rfind("\n") + 1])


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. A file of unchanged size and time is read once per process."""
    found = path.stat()
    return _sha256(path.resolve(), found.st_size, found.st_mtime_ns)


@functools.cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Bytes that are free where `path` is, or will be."""
    there = next(each for each in (path.resolve(), *path.resolve().parents) if each.exists())
    return shutil.disk_usage(there).free


def full_disk(error: BaseException, folder: Path, checkpoint: int | None = None) -> str | None:
    """The sentence for an error that a full disk, or a used-up quota, caused in `folder`; None for any other error.

    It names the file where the error does. `checkpoint`: the bytes that one takes, if they are known.
    """
    chain = list(_chain(error))
    free = free_bytes(folder)
    if free >= _NO_ROOM_BYTES and not any(map(_says_full, chain)):
        return None
    file = next((each.filename for each in chain if isinstance(each, OSError) and each.filename), folder)
    takes = "" if checkpoint is None else f", and a checkpoint takes about {checkpoint / 2**20:.1f} MiB"
    return (
        f"{file}: there is no room left on its disk ({free / 2**20:.1f} MiB are free{takes}); make some, and the same "
        "command goes on from the last checkpoint."
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes errors of a full disk within name `path`, which those of other languages' libraries do not."""
    try:
        yield
    except Exception as error:
        if _says_full(error) or free_bytes(path) < _NO_ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _chain(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _says_full(error: BaseException) -> bool:
    # Libraries of other languages raise types of their own.
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return is_full or os.strerror(errno.ENOSPC) in str(error)

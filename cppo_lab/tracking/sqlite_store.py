"""SQLite stores: made whole or not at all, and checked without MLflow's long waits."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from cppo_lab.failpoints import failpoint
from cppo_lab.files import flush, sweep_scratch
from cppo_lab.tracking.store_address import sqlite_path

_LOCK_PATIENCE_S = 10.0
# With a write-ahead log a reader, such as `mlflow ui`, waits for nobody; it needs memory that processes share, which
# file systems of a network lack.
_LOCAL = frozenset(
    {"apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "overlay", "tmpfs", "xfs", "zfs", "ntfs3"}
)


def sqlite_problem(uri: str) -> str | None:
    """Why a SQLite store cannot be used: locked, not writable, half made, no database.

    None when it can be, for another store, or for a file that does not exist yet.
    """
    path = sqlite_path(uri)
    if path is None or not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=_LOCK_PATIENCE_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            names = [
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            connection.rollback()
    except sqlite3.Error as error:
        return "locked by another process" if "locked" in str(error) else str(error)
    if any(name.startswith("_alembic_tmp_") for name in names):
        return (
            "it is half made: a process was stopped while making or upgrading it. Move it away, "
            f"mv {path} {path}.half; the same command makes a new one, and cppo-lab sync --all fills it from the run "
            "folders"
        )
    return None


def make_sqlite_store(uri: str) -> None:
    """Make a SQLite store that does not exist yet: under another name, then renamed.

    To be called by one process at a time. Does nothing for other stores.
    """
    path = sqlite_path(uri)
    if path is None or str(path) == ":memory:" or path.exists():
        return
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_scratch(path.parent, path.name)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    for left in path.parent.glob(f"{scratch.name}*"):
        left.unlink()
    client = MlflowClient(f"sqlite:///{scratch.resolve()}")
    client.search_experiments(max_results=1)
    _forget(client)
    failpoint("store-made")
    if _is_local(path.parent):
        with closing(sqlite3.connect(scratch)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    flush(scratch)
    scratch.rename(path)
    flush(path.parent)


def move_artifacts(uri: str, experiment_id: str, before: str, now: str) -> None:
    """Let an experiment of a SQLite store, and its runs, have their artifacts in another place, given as addresses.

    MLflow keeps addresses with their whole path, and has no way to change them.
    """
    path = sqlite_path(uri)
    assert path is not None, uri
    with closing(sqlite3.connect(path, timeout=_LOCK_PATIENCE_S)) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, experiment_id)
        )
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (now, len(before) + 1, experiment_id, len(before) + 1, f"{before}/"),
        )


def _forget(client: object) -> None:
    """Close MLflow's connections to a store that is about to be renamed."""
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    engine = getattr(store, "engine", None)
    if engine is not None:
        engine.dispose()


def _is_local(folder: Path) -> bool:
    """Whether a folder is known to be on a file system of this machine alone."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    kinds = {fields[1]: fields[2] for fields in map(str.split, mounts) if len(fields) > 2}
    place = folder.resolve()
    nearest = next((kinds[str(each)] for each in (place, *place.parents) if str(each) in kinds), "")
    return nearest in _LOCAL

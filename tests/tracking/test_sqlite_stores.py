"""A store in SQLite is made whole or not at all, and a half-made one is recognised."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tiny_runs import clean_environment

from cppo_lab.addresses import without_credentials
from cppo_lab.errors import UserError
from cppo_lab.failpoints import VARIABLE
from cppo_lab.tracking.mlflow_store import Store
from cppo_lab.tracking.sqlite_store import sqlite_problem
from cppo_lab.tracking.store_address import default_uri, store_name, ui_command

OPEN = "import sys; from pathlib import Path; from cppo_lab.tracking.mlflow_store import Store; " + (
    "from cppo_lab.tracking.store_address import default_uri; root = Path(sys.argv[1]); "
    "Store(default_uri(root), 'cppo-lab', root)"
)


def opened(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Open the default store of an output folder in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", OPEN, str(root)],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_store_whose_maker_is_killed_is_made_by_the_next_command(tmp_path: Path) -> None:
    killed = opened(tmp_path, **{VARIABLE: "store-made"})
    assert killed.returncode == -9
    assert not (tmp_path / "mlflow.db").exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".mlflow.db.")]
    done = opened(tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if "lock" not in path.name) == ["mlflow.db"]


def test_store_of_a_local_disk_keeps_readers_and_writers_apart(tmp_path: Path) -> None:
    Store(default_uri(tmp_path), "cppo-lab", tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    assert mode == "wal"


def test_half_made_store_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE _alembic_tmp_experiments (id INTEGER)")
        connection.commit()
    with pytest.raises(UserError, match="half made") as caught:
        Store(default_uri(tmp_path), "cppo-lab", tmp_path)
    assert f"mv {path} {path}.half" in str(caught.value)
    path.rename(f"{path}.half")
    Store(default_uri(tmp_path), "cppo-lab", tmp_path)
    assert sqlite_problem(default_uri(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://host:5000/x"),
        ("postgresql+psycopg2://me:p%40ss@db/mlflow", "postgresql+psycopg2://db/mlflow"),
        ("https://token@host", "https://host"),
        ("mssql://db/x?driver=a&password=secret&b=1", "mssql://db/x?driver=a&password=…&b=1"),
        ("(cannot reach http://a:b@c: refused)", "(cannot reach http://c: refused)"),
        ("sqlite:////data/x@y.db", "sqlite:////data/x@y.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_addresses_lose_their_secrets(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    assert without_credentials(shown) == shown


def test_names_and_commands_have_no_secrets(tmp_path: Path) -> None:
    uri = "http://me:secret@host:5000"
    assert store_name(uri, tmp_path) == "http://host:5000"
    assert "secret" not in ui_command(uri, tmp_path)

"""Tracking servers that cannot be read: one sentence, no secret in it, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cppo_lab.analysis.load.mlflow_runs import Selection, load_experiment
from cppo_lab.analysis.load.sources import NothingToReport


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("http://127.0.0.1:9", "--mlflow http://127.0.0.1:9: cannot be read (connection refused)."),
        ("http://me:secret@127.0.0.1:9", "--mlflow http://127.0.0.1:9: cannot be read"),
        ("somewhere", "is not the address of a store"),
        ("sqlite:///absent/mlflow.db", "no such store"),
    ],
)
def test_server_that_cannot_be_read_is_refused_in_one_sentence(
    uri: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(NothingToReport) as caught:
        load_experiment(Selection(uri, "cppo-lab"), tmp_path / "cache")
    assert part in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "no empty store, no cache"


@pytest.fixture
def other_server() -> Iterator[str]:
    """The host and port of a web server that is not MLflow's."""

    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_server_of_something_else_is_refused_without_the_password(
    other_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(NothingToReport) as caught:
        load_experiment(Selection(f"http://me:secret@{other_server}", "cppo-lab"), tmp_path)
    assert str(caught.value).startswith(f"--mlflow http://{other_server}: cannot be read (")
    assert "404" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)

"""Tracking servers that cannot be read: one sentence, no secret in it, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.remote import Wanted, load_experiment
from analysis.runs import NothingToReport


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("http://127.0.0.1:9", "cannot be read"),
        ("http://me:secret@127.0.0.1:9", "--mlflow http://127.0.0.1:9: cannot be read"),
        ("somewhere", "not the address of a store"),
        ("sqlite:///absent/mlflow.db", "no such store"),
    ],
)
def test_server_that_cannot_be_read_is_refused_in_one_sentence(
    uri: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(NothingToReport) as caught:
        load_experiment(Wanted(uri, "cppo-lab"), tmp_path / "cache")
    assert part in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "no empty store, no cache"

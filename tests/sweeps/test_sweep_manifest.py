"""sweep.json: what a sweep's file says, and when it was first run."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from cppo_lab.sweeps import sweep as sweeps
from cppo_lab.sweeps.sweep import Sweep, find_sweep


def planned(tmp_path: Path, more: str = "") -> Sweep:
    file = tmp_path / "mine.yaml"
    file.write_text(f"title: Mine\naxes:\n  seed: [0, 1]\n{more}", encoding="utf-8")
    return find_sweep(str(file), [f"paths.output='{tmp_path / 'out'}'"], None)[0]


def manifest(sweep: Sweep) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(sweep.write_manifest().read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize(("line", "window"), [("window: 8\n", 8), ("window: null\n", None), ("", None)])
def test_window_of_the_file_reaches_the_report(line: str, window: int | None, tmp_path: Path) -> None:
    assert manifest(planned(tmp_path, line))["window"] == window


def test_window_that_changes_replaces_the_old_one(tmp_path: Path) -> None:
    manifest(planned(tmp_path, "window: 8\n"))
    assert manifest(planned(tmp_path))["window"] is None


def test_sweep_keeps_the_time_of_its_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    created = manifest(planned(tmp_path))["created_at"]
    at = datetime.datetime.fromisoformat(created)
    assert before <= at <= datetime.datetime.now(datetime.UTC)
    assert at.utcoffset() == datetime.timedelta(0)
    monkeypatch.setattr(sweeps, "_now", lambda: "2099-01-01T00:00:00+00:00")
    assert manifest(planned(tmp_path, "window: 2\n"))["created_at"] == created


def test_manifest_lists_the_axes_in_the_order_of_the_runs(tmp_path: Path) -> None:
    sweep = planned(tmp_path)
    assert manifest(sweep)["axes"] == sweep.axes == {"seed": ["0", "1"]}


def test_manifest_says_what_it_last_saw_of_each_run(tmp_path: Path) -> None:
    sweep = planned(tmp_path)
    assert [entry["status"] for entry in manifest(sweep)["runs"]] == [None, None]
    sweep.runs[0].folder.path.mkdir(parents=True)
    sweep.runs[0].folder.update_info(status="FINISHED")
    assert [entry["status"] for entry in manifest(sweep)["runs"]] == ["FINISHED", None]

"""Runs that failed, were interrupted, never started, vanished or cannot be read: listed, explained, never dropped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from figure_drawing import drawn
from filelock import FileLock
from run_folders import Fault, write_sweep

from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.method_notes import caveats
from cppo_lab.analysis.page.run_tables import runs_table
from cppo_lab.analysis.page.tables import final_in_words, window_in_words
from cppo_lab.analysis.summary import summarise
from cppo_lab.tracking.run_folder import LOCK_FILE

FAULTS = {
    ("pg", 0): Fault("FAILED", "loss is not finite (nan) at step 6", 6, True),
    ("pg", 1): Fault("FAILED", "RuntimeError: disk is full", 6),
    ("grpo", 0): Fault("INTERRUPTED", "interrupted; the same command goes on from the last checkpoint", 4),
    ("grpo", 1): Fault("RUNNING", None, 5),
}
EXPECTED = {
    ("pg", "seed=0"): ("failed", "yes", "loss is not finite (nan) at step 6"),
    ("pg", "seed=1"): ("failed", "no", "RuntimeError: disk is full"),
    ("pg", "seed=2"): ("finished", "yes", ""),
    ("grpo", "seed=0"): (
        "interrupted",
        "no",
        "interrupted; the same command goes on from the last checkpoint",
    ),
    ("grpo", "seed=1"): (
        "interrupted",
        "no",
        "its process was killed; the same command resumes it from its last checkpoint",
    ),
    ("grpo", "seed=2"): ("pending", "no", "no run folder: not started yet, or deleted"),
}


def shown(study: Study) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Of every run by method and seeds: what the table says of its status, whether it counts, and why."""
    frame = runs_table(study, summarise(study)).frame()
    return {
        (row["method"], row["seeds"]): (row["status"], row["counted"], row["reason"])
        for row in frame.to_dict("records")
    }


def written(output: Path) -> list[Path]:
    return write_sweep(output, algos=("pg", "grpo"), seeds=(0, 1, 2), faults=FAULTS, absent=[("grpo", 2)])


def of_a_sweep(output: Path) -> Study:
    written(output)
    return load_study(output, "quickstart")


def of_two_sweeps(output: Path) -> Study:
    written(output)
    write_sweep(output, name="more", algos=("cppo",), seeds=(0, 1, 2))
    return load_study(output, ["quickstart", "more"])


def of_chosen_runs(output: Path) -> Study:
    return load_study(output, run_folders=[folder for folder in written(output) if folder.exists()])


@pytest.mark.parametrize("source", [of_a_sweep, of_two_sweeps, of_chosen_runs])
def test_every_run_is_listed_with_status_and_reason(source: Callable[[Path], Study], tmp_path: Path) -> None:
    study = source(tmp_path)
    expected = dict(EXPECTED)
    if source is of_chosen_runs:
        # A run without a folder cannot be chosen.
        del expected["grpo", "seed=2"]
    assert shown(study).items() >= expected.items()
    text = " ".join(caveats(study, summarise(study)))
    assert "1 run diverged (pg seed=0) and counts" in text
    assert "1 run failed without diverging (pg seed=1); not counted." in text
    assert "2 runs interrupted (grpo seed=0, grpo seed=1); shown, not counted." in text
    assert ("not started, or deleted (grpo seed=2)" in text) == (source is not of_chosen_runs)


def test_a_setting_without_any_run_yet_takes_no_room_and_no_words(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("pg", "grpo"), learning_rates=(1e-4, 2e-4, 4e-4))
    sweep = json.loads((tmp_path / "sweeps" / "quickstart" / "sweep.json").read_text(encoding="utf-8"))
    for run in sweep["runs"]:
        if run["axes"]["trainer.lr"] != "0.0002":
            shutil.rmtree(tmp_path / run["folder"])
    study = load_study(tmp_path, "quickstart")
    findings = summarise(study)
    assert final_in_words(findings) == "the mean of the last 3 evaluations"
    assert window_in_words(findings) == "steps 0 to 12"
    for figure in (drawn("accuracy", study), drawn("accuracy_against_kl", study)):
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["lr=2e-4"]


def test_run_that_a_process_works_on_is_running(tmp_path: Path) -> None:
    folders = written(tmp_path)
    with FileLock(folders[4] / LOCK_FILE):
        study = load_study(tmp_path, "quickstart")
    assert shown(study)["grpo", "seed=1"] == ("running", "no", "")
    assert "1 run still running (grpo seed=1); shown, not counted." in caveats(study, summarise(study))


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    written(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    load_study(tmp_path, "quickstart")
    assert sorted(tmp_path.rglob("*")) == before


def test_run_that_was_there_when_the_sweep_ended_is_missing_and_not_pending(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("pg", "grpo"), seeds=(0, 1), absent=[("grpo", 0), ("grpo", 1)])
    path = tmp_path / "sweeps" / "quickstart" / "sweep.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for entry in manifest["runs"][:3]:
        entry["status"] = "FINISHED"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    study = load_study(tmp_path, "quickstart")
    assert shown(study)["grpo", "seed=0"] == (
        "missing",
        "no",
        "its folder was deleted; its last known status is finished",
    )
    assert shown(study)["grpo", "seed=1"][0] == "pending"
    text = caveats(study, summarise(study))
    assert "1 run missing, its folder is gone (grpo seed=0); shown, not counted." in text


def cut(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")


def binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def a_list(path: Path) -> None:
    path.write_text("[1, 2]", encoding="utf-8")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "harm", "reason"),
    [
        ("run.json", Path.unlink, "run.json is missing"),
        ("run.json", cut, "run.json is not a JSON object"),
        ("run.json", a_list, "run.json is not a JSON object"),
        ("run.json", binary, "run.json cannot be read (not UTF-8)"),
        ("run.json", a_folder, "run.json cannot be read (is a directory)"),
    ],
)
def test_run_without_a_readable_run_json_is_listed_as_unknown(
    name: str, harm: Callable[[Path], Any], reason: str, tmp_path: Path
) -> None:
    folders = write_sweep(tmp_path, algos=("pg", "grpo"), seeds=(0, 1))
    harm(folders[3] / name)
    study = load_study(tmp_path, "quickstart")
    assert shown(study)["grpo", "seed=1"] == ("unknown", "no", reason)
    said = caveats(study, summarise(study))
    assert f"{folders[3].name}: {reason}." in said
    assert "1 run unreadable (grpo seed=1); shown, not counted." in said


@pytest.mark.parametrize(
    ("name", "harm", "note"),
    [
        ("config.yaml", binary, "config.yaml cannot be read (not UTF-8)."),
        ("config.yaml", a_list, "config.yaml is not a configuration and was ignored."),
        ("metrics.jsonl", cut, "1 unreadable line in metrics.jsonl ignored."),
        ("metrics.jsonl", a_folder, "metrics.jsonl cannot be read (is a directory)."),
        ("timings.jsonl", cut, "1 unreadable line in timings.jsonl ignored."),
        ("profiles.jsonl", a_folder, "profiles.jsonl cannot be read (is a directory)."),
    ],
)
def test_file_that_cannot_be_read_is_said(
    name: str, harm: Callable[[Path], Any], note: str, tmp_path: Path
) -> None:
    folders = write_sweep(tmp_path, algos=("pg", "grpo"), seeds=(0, 1))
    harm(folders[3] / name)
    study = load_study(tmp_path, "quickstart")
    assert f"{folders[3].name}: {note}" in study.notes
    assert len(study.runs) == 4


def test_file_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = write_sweep(tmp_path, algos=("pg", "grpo"), seeds=(0, 1))
    closed = folders[3] / "metrics.jsonl"
    opened = Path.open

    def guarded(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", guarded)
    study = load_study(tmp_path, "quickstart")
    assert f"{closed.parent.name}: metrics.jsonl cannot be read (permission denied)." in study.notes

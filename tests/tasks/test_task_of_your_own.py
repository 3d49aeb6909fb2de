"""The example of a task with code, used as its README says: from a folder outside the repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_runs import ROOT, lab, one_run_folder

pytestmark = pytest.mark.slow
# Two steps from a policy that has hardly been warmed up.
SHORT = (
    "trainer.steps=2",
    "trainer.prompts_per_step=4",
    "trainer.group_size=4",
    "trainer.evaluation_problems=8",
    "warmup.steps=1",
    "warmup.max_steps=1",
    "tracking=none",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "examples" / "my_task", tmp_path / "my_task")
    return tmp_path


def test_the_example_trains_and_its_own_grader_decides(folder: Path) -> None:
    done = lab("train", "task=letters", "--plugins", "my_task", *SHORT, "paths.output=out", cwd=folder)
    assert done.returncode == 0, done.stderr
    run = one_run_folder(folder / "out")
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (info["status"], info["task"], info["plugins"][0]["name"]) == ("FINISHED", "letters", "my_task")
    rows = [json.loads(line) for line in (run / "samples" / "step_000002.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        stated = row["completion"].rpartition("=")[2].strip()
        assert row["verdict"] == (
            "unparsable" if not stated.isdigit() else "correct" if stated == row["answer"] else "wrong"
        )


def test_the_example_is_listed_and_its_keys_are_checked(folder: Path) -> None:
    listed = lab("list", "tasks", "--plugins", "my_task", cwd=folder)
    assert "letters" in listed.stdout, listed.stderr
    for override, sentence in (
        ("task.size=10", "task.size=10: must be above heldout = 128 and at most"),
        ("task.word_length=0", "task.word_length=0: must be greater than or equal to 1"),
        ("task.words=5", "task.words: unknown key"),
    ):
        refused = lab("config", "task=letters", override, "--plugins", "my_task", cwd=folder)
        assert refused.returncode == 2
        assert sentence in refused.stderr


def test_without_the_plug_in_the_task_is_unknown(folder: Path) -> None:
    refused = lab("config", "task=letters", cwd=folder)
    assert refused.returncode == 2
    assert (
        "task=letters: unknown; allowed are chain, custom, dapo_math, gsm8k, reasoning_gym." in refused.stderr
    )

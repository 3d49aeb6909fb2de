"""A run that cannot learn says so in its first two steps: why, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TINY, tiny_config

from cppo_lab.diagnostics.nothing_learnt import nothing_to_learn
from cppo_lab.tracking.run_folder import run_folder
from cppo_lab.training.run import run

USUAL = {
    "rollout/truncated_share": 0.1,
    "rollout/length_max": 40.0,
    "train/unparsed_share": 0.2,
    "train/all_wrong_groups": 0.4,
    "train/all_right_groups": 0.1,
    "train/zero_variance_groups": 0.5,
    "train/updates": 3.0,
}
CUT, UNREAD = "rollout/truncated_share", "train/unparsed_share"
WRONG, RIGHT, ALIKE = "train/all_wrong_groups", "train/all_right_groups", "train/zero_variance_groups"


def rows(*changes: dict[str, float]) -> list[dict[str, Any]]:
    return [{"step": 0}, *({"step": step, **USUAL, **change} for step, change in enumerate(changes, 1))]


@pytest.mark.parametrize(
    ("change", "starts"),
    [
        (
            {CUT: 1.0},
            ["Every response of the first 2 steps was cut off at 40 tokens: raise task.max_response_tokens"],
        ),
        (
            {UNREAD: 1.0, WRONG: 1.0, ALIKE: 1.0},
            ["No response of the first 2 steps has an answer that the grader"],
        ),
        ({WRONG: 1.0, ALIKE: 1.0}, ["Every response of the first 2 steps is wrong"]),
        ({RIGHT: 1.0, ALIKE: 1.0}, ["Every response of the first 2 steps is right"]),
        ({ALIKE: 1.0}, ["In every group of the first 2 steps all responses are right or all are wrong"]),
        (
            {CUT: 1.0, UNREAD: 1.0, ALIKE: 1.0},
            ["Every response of the first 2", "No response of the first 2"],
        ),
    ],
)
def test_each_reason_is_named(change: dict[str, float], starts: list[str]) -> None:
    said = nothing_to_learn(rows(change, change, {}))
    assert len(said) == len(starts)
    assert all(sentence.startswith(start) for sentence, start in zip(said, starts, strict=True))
    assert "No update" not in " ".join(said)
    still = nothing_to_learn(rows({**change, "train/updates": 0.0}, {**change, "train/updates": 0.0}))
    assert still[-1].endswith(" No update was taken.")


def test_one_step_that_teaches_something_is_enough() -> None:
    assert nothing_to_learn(rows({UNREAD: 1.0}, {})) == []
    assert nothing_to_learn(rows({}, {ALIKE: 1.0})) == []
    assert nothing_to_learn(rows({})) == []
    assert nothing_to_learn([{"step": 0}]) == []


def test_a_critic_needs_no_variance_within_groups() -> None:
    critic = {"critic/loss": 0.1}
    assert nothing_to_learn(rows({ALIKE: 1.0, **critic}, {ALIKE: 1.0, **critic})) == []
    assert nothing_to_learn(rows({WRONG: 1.0, ALIKE: 1.0, **critic}))


def test_it_is_said_at_once_on_the_terminal_and_in_run_json(output: Path, invoke: Callable[..., Any]) -> None:
    """Responses of one token never hold an answer, and are all cut off."""
    asked = ("task.max_response_tokens=1", "trainer.steps=3")
    code, out, err = invoke("train", *TINY, f"paths.output='{output}'", *asked)
    assert code == 0
    lines = (out + err).splitlines()
    cut, unread = (
        next(number for number, line in enumerate(lines) if line.startswith("Warning: ") and start in line)
        for start in (
            "Every response of the first 2 steps was cut off at 1 token:",
            "No response of the first 2 steps",
        )
    )
    last = next(number for number, line in enumerate(lines) if "step 3/3" in line)
    assert cut < unread < last, "before the run goes on"
    assert lines[unread].endswith("No update was taken.")
    said = run_folder(tiny_config(output, *asked)).info["warnings"]
    assert [sentence[:5] for sentence in said[:2]] == ["Every", "No re"]


def test_a_run_that_learns_is_not_warned(output: Path) -> None:
    assert nothing_to_learn(run(tiny_config(output, "algo=pg")).rows("metrics.jsonl")) == []

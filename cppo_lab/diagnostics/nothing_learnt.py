"""A run that has nothing to learn from, said in its first steps: why, and what to do. None of this needs PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

EARLY_STEPS = 2
"""The training steps that are looked at."""
_ALL = 0.995
"""A share of responses or groups that is as good as all of them."""


def nothing_to_learn(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What keeps the first `EARLY_STEPS` steps of a run from learning anything, from its `metrics` by step.

    Empty where something can be learnt, or no step was taken yet. Advantages relative to a group need groups whose
    rewards vary; those of a critic need rewards that vary at all.
    """
    early = [row for row in rows if 1 <= row["step"] <= EARLY_STEPS]
    if not early:
        return []
    when = "the first step" if len(early) == 1 else f"the first {len(early)} steps"
    said = []
    if _throughout(early, "rollout/truncated_share"):
        limit = int(early[-1]["rollout/length_max"])
        said.append(
            f"Every response of {when} was cut off at {limit} token{'' if limit == 1 else 's'}: raise "
            "task.max_response_tokens, or give the model a prompt after which it ends its responses."
        )
    if _throughout(early, "train/unparsed_share"):
        said.append(
            f"No response of {when} has an answer that the grader can read, so every reward is 0: look at the "
            "responses in the run's samples, and let the prompt ask for the form that is graded (#### or \\boxed{})."
        )
    elif (found := _same_rewards(early)) is not None:
        said.append(found.format(when=when))
    if said and not any(row.get("train/updates") for row in early):
        said[-1] += " No update was taken."
    return said


def _throughout(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all((row.get(key) or 0.0) >= _ALL for row in rows)


_WRONG = (
    "Every response of {when} is wrong, so none is better than another: take easier problems, larger groups "
    "(trainer.group_size), or a model that already solves some of them."
)
_RIGHT = "Every response of {when} is right, so none is better than another: take harder problems."
_ALIKE = (
    "In every group of {when} all responses are right or all are wrong, so none is better than another of its group: "
    "take larger groups (trainer.group_size), or problems of which the model solves some."
)


def _same_rewards(rows: Sequence[Mapping[str, Any]]) -> str | None:
    if _throughout(rows, "train/all_wrong_groups"):
        return _WRONG
    if _throughout(rows, "train/all_right_groups"):
        return _RIGHT
    has_critic = any("critic/loss" in row for row in rows)
    return _ALIKE if _throughout(rows, "train/zero_variance_groups") and not has_critic else None

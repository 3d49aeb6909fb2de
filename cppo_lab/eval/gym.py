"""reasoning-gym's problems for `cppo-lab eval`: those that a run held out, or those of a family that is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cppo_lab.errors import UserError, one_of
from cppo_lab.tasks.benchmarks import Question
from cppo_lab.tasks.reasoning_gym import FAMILIES, RUNS_ANSWERS, ReasoningGymConfig

GYM = "reasoning_gym"


def gym_task(family: str | None, difficulty: str | None, trained_on: Mapping[str, Any]) -> ReasoningGymConfig:
    """The task that `trained_on`, the task of a run, or `--family` describes; `--difficulty` is of a named family.

    Raises UserError where neither is given, for a family that is unknown or refused, and for a difficulty that is not
    a mapping.
    """
    from cppo_lab.config.compose import compose_run

    if family is None:
        if difficulty is not None:
            raise UserError(f"--difficulty {difficulty}: is of a family; give its --family too.")
        if trained_on.get("kind") != GYM:
            raise UserError(f"task={GYM}: give a --family of problems, or a --run that was trained on one.")
        return ReasoningGymConfig.model_validate(trained_on)
    if family not in (*FAMILIES, *RUNS_ANSWERS):
        raise one_of("--family", family, FAMILIES)
    told = [f"task={GYM}", f"task.family={family}", f"task.difficulty={difficulty or 'null'}"]
    # Not the model that is evaluated: from-scratch ones are trained on few families.
    task = compose_run([*told, "model=pretrained", "model.path=none", "warmup=none"]).task
    assert isinstance(task, ReasoningGymConfig), "the group names its class"
    return task


def gym_questions(task: ReasoningGymConfig) -> list[Question]:
    """The held-out problems. Raises UserError where the package is missing or another version."""
    rows = [problem.row for problem in task.problems().heldout]
    return [Question(row["question"].strip(), row["answer"], row) for row in rows if row is not None]

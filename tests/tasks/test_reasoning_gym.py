"""reasoning-gym's families: which are taken, by which seeds, and that the lab's grader agrees with their answers."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from cppo_lab.config.compose import compose_run
from cppo_lab.errors import UserError
from cppo_lab.tasks.asking import AskedModel
from cppo_lab.tasks.problem_set import ProblemSet
from cppo_lab.tasks.reasoning_gym import FAMILIES, RUNS_ANSWERS, ReasoningGymConfig


def config_of(*overrides: str) -> ReasoningGymConfig:
    model = ("model=pretrained", "model.path=some/model")
    task = compose_run(["task=reasoning_gym", *model, *overrides]).task
    assert isinstance(task, ReasoningGymConfig)
    return task.asked_of(AskedModel(is_pretrained=True))


def problems_of(*overrides: str) -> ProblemSet:
    return config_of("task.training=40", "task.heldout=8", *overrides).problems()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "task.family=countdown",
            r"task\.family=countdown: .* running the answer as code; take one of aiw, basic",
        ),
        (
            "task.family=sudoku",
            r"task\.family=sudoku: unknown, or has several right answers; take one of aiw",
        ),
    ],
)
def test_other_families_are_refused_by_name(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        config_of(override)


@pytest.mark.testbed
def test_families_whose_scorer_runs_the_answer_are_known() -> None:
    from reasoning_gym.factory import DATASETS

    runs = {
        name
        for name, (data, _) in DATASETS.items()
        if re.search(r"\b(eval|exec|literal_eval|parse_expr|sympify)\(", inspect.getsource(data.score_answer))
    }
    assert runs == set(RUNS_ANSWERS)
    assert not runs & FAMILIES.keys()


@pytest.mark.testbed
@pytest.mark.parametrize("family", FAMILIES)
def test_the_grader_agrees_with_a_family_s_answers(family: str) -> None:
    from reasoning_gym import create_dataset

    task = config_of(f"task.family={family}", "task.training=12", "task.heldout=4")
    found = task.problems()
    assert len(found.heldout) == 4
    for problem in found.training:
        stated = [
            task.asking.stated(problem.answer),
            task.asking.stated(f"{problem.answer}1"),
            problem.answer,
        ]
        verdicts = task.grade(stated, [problem] * 3)
        assert [verdict.correct for verdict in verdicts] == [True, False, False]
    data = create_dataset(family, size=1, seed=0)
    entry: dict[str, Any] = data[0]
    assert data.score_answer(entry["answer"], entry) == 1.0


@pytest.mark.testbed
def test_problems_are_different_and_fixed_by_their_seed() -> None:
    found, again, other = (problems_of(), problems_of(), problems_of("task.problems_seed=1"))
    assert found == again
    assert len(found.training) == 40
    prompts = [problem.prompt for problem in (*found.training, *found.heldout)]
    assert len(set(prompts)) == 48
    assert not set(prompts) & {problem.prompt for problem in other.training}


@pytest.mark.testbed
def test_difficulty_is_the_family_s_own() -> None:
    found = problems_of("task.difficulty={min_terms: 3, max_terms: 3, min_digits: 1, max_digits: 1}")
    assert all(re.search(r"problem: \d [+-] \d [+-] \d =", problem.prompt) for problem in found.training)
    few = config_of("task.difficulty={min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1}").problems()
    assert len({problem.prompt for problem in few.training}) <= 200, "no more than there are"
    with pytest.raises(
        UserError, match=r"task\.difficulty={'terms': 3}: reasoning-gym refuses it for chain_sum"
    ):
        config_of("task.difficulty={terms: 3}").check_files()


@pytest.mark.testbed
def test_workings_of_sums_go_step_by_step_to_the_answer() -> None:
    task = config_of("task.training=30")
    for problem in task.problems().training:
        assert task.grade([problem.solution], [problem])[0].correct
        steps = re.findall(r"(-?\d+) ([+-]) (\d+) = (-?\d+)\.", problem.solution)
        assert len(steps) >= 1
        for before, sign, term, after in steps:
            assert int(before) + int(f"{sign}{term}") == int(after)


@pytest.mark.testbed
def test_another_version_of_the_package_is_refused() -> None:
    with pytest.raises(UserError, match=r"task\.version=0\.1\.1: reasoning-gym 0\.1\.25 is installed"):
        config_of("task.version='0.1.1'").check_files()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cppo_lab.tasks.reasoning_gym.PACKAGE", "reasoning-gym-that-is-not-there")
    with pytest.raises(UserError, match=r"is not installed; pip install 'cppo-lab\[gym\]'"):
        config_of().check_files()

"""Reward functions of one's own, with TRL's signature: what they are given, and what they may give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import run_id
from cppo_lab.errors import UserError
from cppo_lab.tasks.asking import AskedModel
from cppo_lab.tasks.own_reward import OwnReward
from cppo_lab.tasks.problem import Problem

PLAIN = Problem("How many?", "4", row={"question": "How many?", "answer": "4", "level": 2})
CHAT = Problem("How many?", "4", is_chat=True, system="Be brief.", row={"level": 3})

# As TRL's documentation has them.
LENGTH = "def reward(completions, **kwargs):\n    return [float(len(c)) for c in completions]\n"
LEVEL = """
def graded(prompts, completions, level, **kwargs):
    return [0.5 * n if c.endswith("4") else None for c, n in zip(completions, level)]
"""
SEEN = """
seen = []
def reward(prompts, completions, **kwargs):
    seen.append((prompts, completions, kwargs))
    return [1] * len(completions)
"""


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_columns_of_the_data_come_by_name(tmp_path: Path) -> None:
    own = OwnReward(written(tmp_path / "r.py", LEVEL), "graded", correct_from=1.0)
    found = own.grade(["It is 4", "It is 5", "4"], [PLAIN, PLAIN, Problem("?", "4", row={"level": 1})])
    assert [verdict.reward for verdict in found] == [1.0, 0.0, 0.5]
    assert [verdict.outcome.value for verdict in found] == ["correct", "unparsable", "wrong"]


def test_chat_prompts_come_as_messages(tmp_path: Path) -> None:
    own = OwnReward(written(tmp_path / "seen.py", SEEN))
    assert [verdict.correct for verdict in own.grade(["a", "b"], [PLAIN, CHAT])] == [True, True]
    (prompts, completions, columns), *_ = own._function.__globals__["seen"]
    assert prompts[0] == "How many?"
    assert prompts[1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
    ]
    assert completions == ["a", [{"role": "assistant", "content": "b"}]]
    assert columns == {"question": ["How many?", None], "answer": ["4", None], "level": [2, 3]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "def reward(prompts, completions, colour):\n    return []\n",
            "reward wants colour, which the data do not",
        ),
        (
            "def reward(completions, **_):\n    return [1.0]\n",
            r"a number for each of 2 responses; it returned 1 of",
        ),
        ("def reward(completions, **_):\n    return 1.0\n", r"must return a list .* it returned float"),
        ("def reward(completions, **_):\n    return ['a', 1]\n", r"finite numbers, or None; it returned 'a'"),
        (
            "def reward(completions, **_):\n    return [float('nan')] * 2\n",
            r"finite numbers, or None; it returned nan",
        ),
        (
            "def reward(completions, **_):\n    return 1 / 0\n",
            r"reward raised ZeroDivisionError: division by zero",
        ),
        (
            "def rewards(completions, **_):\n    return []\n",
            r"reward_function=reward: .* Did you mean 'rewards'",
        ),
        (
            "import absent_module\n",
            r"cannot be loaded \(ModuleNotFoundError: No module named 'absent_module'",
        ),
    ],
    ids=["column", "too few", "no list", "text", "nan", "raises", "name", "import"],
)
def test_a_function_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    own = OwnReward(written(tmp_path / "r.py", text))
    with pytest.raises(UserError, match=sentence) as caught:
        own.grade(["a", "b"], [PLAIN, PLAIN])
    assert "\n" not in str(caught.value)


def test_it_may_read_references_that_no_grader_compares(tmp_path: Path) -> None:
    data, reward = tmp_path / "train.csv", tmp_path / "r.py"
    data.write_text("problem,gold\nhalf of 1?,\\frac{1}{2}\nhalf of 3?,\\frac{3}{2}\n", encoding="utf-8")
    reward.write_text(
        "def reward(completions, gold, **_):\n    return [float(r in g) for r, g in zip(completions, gold)]\n"
    )
    columns = ("task.question_column=problem", "task.answer_column=gold", "task.heldout=1")
    usual = ["task=custom", f"task.path='{data}'", *columns, "model=pretrained", "model.path=some/model"]
    with pytest.raises(
        UserError, match=r"row 1: 'gold' must be a number.* take the grader symbolic or text\."
    ):
        compose_run(usual).task.check_files()
    config = compose_run([*usual, f"task.reward='{reward}'"])
    config.task.check_files()
    task = config.task.asked_of(AskedModel(is_pretrained=True)).build()
    problems = task.training_problems(0, 1, 0) * 2
    assert [each.reward for each in task.grade(["frac", "no"], problems)] == [1.0, 0.0]


def test_a_task_takes_it_from_a_file_whose_bytes_are_in_the_identity(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    rows = [{"problem": f"{i}?", "gold": str(i), "level": i % 2} for i in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reward = tmp_path / "r.py"
    written(reward, LEVEL)

    def overrides(name: str = "graded") -> list[str]:
        return [
            *(
                "task=custom",
                f"task.path='{data}'",
                "task.question_column=problem",
                "task.answer_column=gold",
            ),
            *("task.heldout=2", f"task.reward='{reward}'", f"task.reward_function={name}"),
            *("model=pretrained", "model.path=some/model"),
        ]

    config = compose_run(overrides())
    config.task.check_files()
    task = config.task.asked_of(AskedModel(is_pretrained=True)).build()
    problems = task.training_problems(0, 4, 0)
    found = task.grade(["4"] * 4, problems)
    assert [verdict.reward for verdict in found] == [0.5 * int(p.answer) % 1 for p in problems]
    before = run_id(config)
    written(reward, LEVEL + "# other\n")
    assert run_id(compose_run(overrides())) != before
    with pytest.raises(UserError, match=r"task\.reward_function=grade: .* Did you mean 'graded'"):
        compose_run(overrides("grade")).task.check_files()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "task.reward_function=graded",
            r"task\.reward_function=graded: needs its file; give task\.reward=FILE",
        ),
        ("task.reward_correct=0.5", r"task\.reward_correct=0\.5: only applies to a task\.reward"),
    ],
)
def test_settings_of_a_reward_that_is_not_given_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        compose_run(["task=gsm8k", override])

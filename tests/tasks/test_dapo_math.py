"""DAPO-Math from files in either layout: which rows are kept and dropped, and how they are counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from cppo_lab.errors import UserError
from cppo_lab.tasks.dapo_math import HUB_REVISION, DapoMathConfig, HeldoutPaths, bare_question, prompt_text
from cppo_lab.tasks.grading.answers import AnswerFormat, grade
from cppo_lab.tasks.problem_set import ProblemSetTask

AIME = [{"problem": f"Contest problem {i}: find ${i}+1$.", "answer": f"{i + 1:03d}"} for i in range(4)]


def processed(question: str, answer: str) -> dict[str, Any]:
    return {"prompt": question, "solution": answer, "data_source": "math_dapo"}


def original(question: str, answer: str) -> dict[str, Any]:
    return {
        "prompt": [{"content": prompt_text(question), "role": "user"}],
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
    }


def write(path: Path, rows: Iterable[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def config_of(
    path: str | None, heldout_paths: Mapping[str, str | None], prompt: Literal["plain", "chat"] = "plain"
) -> DapoMathConfig:
    paths: dict[str, str | None] = dict.fromkeys(("aime24", "aime25", "aime26"))
    return DapoMathConfig(
        kind="dapo_math",
        path=path,
        revision=HUB_REVISION,
        prompt=prompt,
        benchmarks=tuple(heldout_paths),  # type: ignore[arg-type]
        heldout_paths=HeldoutPaths(**paths | dict(heldout_paths)),
        samples=1,
        evaluation_temperature=1.0,
        evaluation_top_p=1.0,
        max_response_tokens=64,
    )


def task_of(tmp_path: Path, rows: Iterable[Any], **extra: Any) -> ProblemSetTask:
    return built(write(tmp_path / "train.jsonl", rows), tmp_path, **extra)


def built(path: str, tmp_path: Path, **extra: Any) -> ProblemSetTask:
    heldout = {"aime24": write(tmp_path / "aime24.jsonl", AIME)}
    task = config_of(path, **{"heldout_paths": heldout} | extra).build()
    assert isinstance(task, ProblemSetTask)
    return task


QUESTIONS = [(f"What is {i} and {i}?", str(2 * i)) for i in range(6)]


@pytest.mark.parametrize("layout", [processed, original])
def test_both_layouts_give_the_same_prompts_and_answers(tmp_path: Path, layout: Any) -> None:
    task = task_of(tmp_path, [layout(*pair) for pair in QUESTIONS])
    assert [(p.prompt, p.answer) for p in task.problems.training] == [
        (prompt_text(question), answer) for question, answer in QUESTIONS
    ]
    assert all(p.format.answer_line and not p.is_chat for p in task.problems.training)


def test_parquet_in_the_original_layout_is_read(tmp_path: Path) -> None:
    rows = [original(*pair) for pair in QUESTIONS for _ in range(3)]
    pd.DataFrame(rows).to_parquet(tmp_path / "train.parquet")
    task = built(str(tmp_path / "train.parquet"), tmp_path)
    assert task.data_counts["rows"] == 18
    assert task.data_counts["duplicates"] == 12
    assert task.data_counts["training"] == 6


def test_every_dropped_row_is_counted_by_its_reason(tmp_path: Path) -> None:
    rows = [
        *(processed(*pair) for pair in QUESTIONS),
        processed("What  is 0 and\n0?", "0.0"),  # the same problem, typeset otherwise
        processed("What is $1$ and $1$?", "2"),
        processed("How many are there?", "3"),
        processed("How many are there?", "4"),
        processed("Name it.", "\\frac{1}{2}"),
        processed(AIME[0]["problem"].replace("$", ""), "1"),
    ]
    task = task_of(tmp_path, rows)
    assert task.data_counts == {
        "rows": 12,
        "duplicates": 2,
        "conflicting": 2,
        "not_numeric": 1,
        "held_out": 1,
        "training": 6,
    }
    assert {p.answer for p in task.problems.training} == {answer for _, answer in QUESTIONS}


def test_problems_that_differ_in_a_sign_are_distinct(tmp_path: Path) -> None:
    task = task_of(tmp_path, [processed("Find $2-3$.", "-1"), processed("Find $2+3$.", "5")])
    assert task.data_counts["training"] == 2


def test_training_goes_through_all_problems_in_a_new_order(tmp_path: Path) -> None:
    task = task_of(tmp_path, [processed(*pair) for pair in QUESTIONS])
    epochs = [[p.prompt for p in task.training_problems(step, 6, seed=3)] for step in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 6 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_held_out_problems_alternate_between_benchmarks(tmp_path: Path) -> None:
    heldout = {
        "aime24": write(tmp_path / "a.jsonl", AIME),
        "aime25": write(tmp_path / "b.jsonl", [{"problem": f"B{i}", "answer": i} for i in range(2)]),
    }
    task = task_of(tmp_path, [processed(*pair) for pair in QUESTIONS], heldout_paths=heldout, prompt="chat")
    found = task.heldout_problems()
    assert [p.benchmark for p in found] == ["aime24", "aime25", "aime24", "aime25", "aime24", "aime24"]
    assert all(p.is_chat for p in found)
    assert found[0].answer == "1"


def test_real_aime_problems_get_the_prompt_of_dapo(shared_data: Path, tmp_path: Path) -> None:
    rows = [processed(*pair) for pair in QUESTIONS]
    task = task_of(tmp_path, rows, heldout_paths={"aime24": str(shared_data / "aime24" / "test.jsonl")})
    problems = task.heldout_problems()
    assert len(problems) == 30
    assert all(bare_question(p.prompt) != p.prompt and 0 <= int(p.answer) <= 999 for p in problems)
    assert all(
        grade(f"So.\nAnswer: {p.answer}", p.answer, AnswerFormat(answer_line=True)).correct for p in problems
    )


BROKEN = {
    "no prompt": ([{"solution": "1"}], r"row 1: 'prompt' must be a text"),
    "no answer": ([processed("q", "1"), {"prompt": "r"}], r"row 2: needs the key 'solution'"),
    "no messages": ([{"prompt": [], "solution": "1"}], r"row 1: 'prompt' must be a text"),
    "no row": ([[1]], r"row 1: a DAPO-Math row needs"),
    "nothing numeric": ([processed("q", "x")], r"leaves no problem to train on; 1 rows were read"),
    "held out alone": ([processed(AIME[1]["problem"], "2")], r"leaves no problem to train on"),
    "empty": ([], r"leaves no problem to train on; 0 rows"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    rows, sentence = BROKEN[case]
    with pytest.raises(UserError, match=sentence) as caught:
        task_of(tmp_path, rows).training_problems(0, 1, seed=0)
    assert "\n" not in str(caught.value)


def test_local_files_are_checked_without_asking_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cppo_lab.tasks.dapo_math.hub_rows", None)
    monkeypatch.setattr("cppo_lab.tasks.benchmarks.hub_rows", None)
    train = write(tmp_path / "train.jsonl", [processed(*QUESTIONS[1])])
    config_of(train, {"aime24": None}).check_files()
    other = write(tmp_path / "other.jsonl", [{"question": "q", "answer": "1"}])
    with pytest.raises(
        UserError, match=r"needs the columns problem, answer .* task\.heldout_paths\.aime24 takes"
    ):
        config_of(None, {"aime24": other}).check_files()
    with pytest.raises(UserError, match="no such data file"):
        config_of(None, {"aime24": None, "aime25": str(tmp_path / "absent.jsonl")}).check_files()
    with pytest.raises(UserError, match="no problem to train on"):
        config_of(write(tmp_path / "empty.jsonl", []), {"aime24": None}).check_files()


def test_warm_up_without_solutions_is_refused(tmp_path: Path) -> None:
    task = task_of(tmp_path, [processed(*QUESTIONS[1])])
    with pytest.raises(UserError, match="warmup=none"):
        task.warmup_problems(np.random.default_rng(0), 1, 1, 0.0)

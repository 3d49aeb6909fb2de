"""GSM8K from files: the real ones, and broken ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cppo_lab.errors import UserError
from cppo_lab.tasks.grading.answers import grade
from cppo_lab.tasks.gsm8k import HUB_REVISION, Gsm8kConfig, load_problems
from cppo_lab.tasks.task import Task


def gsm8k(path: Path | str, heldout: int, heldout_path: Path | str | None = None) -> Task:
    return Gsm8kConfig(
        kind="gsm8k",
        path=str(path),
        heldout_path=heldout_path and str(heldout_path),
        heldout=heldout,
        revision=HUB_REVISION,
        max_response_tokens=192,
    ).build()


def write_rows(path: Path, count: int, first: int = 0) -> Path:
    rows = [
        {"question": f"What is {i} and 1?", "answer": f"It is <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1:,}"}
        for i in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "count"), [("train", 7473), ("test", 1319)])
def test_real_files_load_completely_and_their_solutions_grade_correct(
    shared_data: Path, name: str, count: int
) -> None:
    problems = load_problems(str(shared_data / "gsm8k" / f"{name}.jsonl"), name)
    assert len(problems) == count
    assert all(grade(problem.solution, problem.answer).correct for problem in problems)
    assert all(p.prompt.startswith("Question: ") and p.prompt.endswith("\nAnswer:") for p in problems)


def test_real_training_never_sees_the_heldout_problems(shared_data: Path) -> None:
    task = gsm8k(shared_data / "gsm8k" / "train.jsonl", 128)
    heldout = {problem.prompt for problem in task.heldout_problems()}
    assert len(task.heldout_problems()) == 128
    seen = {p.prompt for step in range(80) for p in task.training_problems(step, 100, seed=0)}
    assert len(seen) > 7000
    assert not seen & heldout
    assert not {p.prompt for p in task.warmup_problems(np.random.default_rng(0), 5000, 1, 0.0)} & heldout
    assert not any(text.startswith(tuple(heldout)) for text in task.supervised_texts())


def test_every_epoch_visits_each_problem_once_in_a_new_order(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", 30)
    task = gsm8k(path, 6)
    # 24 training problems; batches of 9 cross the borders of epochs.
    stream = [p.prompt for step in range(8) for p in task.training_problems(step, 9, seed=4)]
    epochs = [stream[i : i + 24] for i in range(0, 72, 24)]
    assert all(Counter(epoch) == Counter(epochs[0]) and len(set(epoch)) == 24 for epoch in epochs)
    assert epochs[0] != epochs[1]
    other = [p.prompt for step in range(2) for p in task.training_problems(step, 12, seed=5)]
    assert other != epochs[0]
    assert Counter(other) == Counter(epochs[0])


def test_training_stream_needs_no_earlier_call(tmp_path: Path) -> None:
    path = str(write_rows(tmp_path / "train.jsonl", 30))
    first, second = (gsm8k(path, 6) for _ in range(2))
    for step in range(7):
        first.training_problems(step, 9, seed=1)
    assert first.training_problems(7, 9, seed=1) == second.training_problems(7, 9, seed=1)


def test_problem_in_both_files_is_kept_out_of_training(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", 20)
    heldout = write_rows(tmp_path / "test.jsonl", 5, first=18)
    task = gsm8k(train, 100, heldout)
    assert len(task.heldout_problems()) == 5
    seen = {p.prompt for p in task.training_problems(0, 18, seed=0)}
    assert len(seen) == 18
    assert not seen & {p.prompt for p in task.heldout_problems()}


def test_parquet_holds_the_same_problems_as_jsonl(tmp_path: Path) -> None:
    jsonl = write_rows(tmp_path / "data.jsonl", 12)
    pd.read_json(jsonl, lines=True).to_parquet(tmp_path / "data.parquet")
    assert load_problems(str(tmp_path / "data.parquet"), "test") == load_problems(str(jsonl), "test")


def test_line_separators_inside_a_text_do_not_end_the_row(tmp_path: Path) -> None:
    row = {"question": "one\u2028two\u0085three", "answer": "#### 3"}
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert "one\u2028two\u0085three" in load_problems(str(path), "test")[0].prompt


GOOD = '{"question": "q", "answer": "#### 1"}\n'
BROKEN = {
    "corrupt": (GOOD + '{"question": "q", "ans\n', r"cannot be read as JSONL"),
    "no_keys": (GOOD + '{"q": 1}\n', r"row 2: a GSM8K row needs the keys 'question' and 'answer'"),
    "not_a_row": (GOOD + "[1, 2]\n", r"row 2: a GSM8K row needs the keys"),
    "not_text": ('{"question": 3, "answer": "#### 1"}\n', r"row 1: 'question' and 'answer' must be text"),
    "no_mark": ('{"question": "q", "answer": "it is 7"}\n', r"row 1: 'answer' must end in '#### NUMBER'"),
    "no_number": ('{"question": "q", "answer": "#### many"}\n', r"row 1: 'answer' must end in"),
    "empty": ("", r"contains no problems"),
    "blank": ("\n\n", r"contains no problems"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_refused_in_one_sentence_with_its_name(tmp_path: Path, case: str) -> None:
    text, sentence = BROKEN[case]
    path = tmp_path / f"{case}.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=sentence) as caught:
        load_problems(str(path), "test")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.jsonl: no such data file"):
        load_problems(str(tmp_path / "absent.jsonl"), "test")


@pytest.mark.parametrize("name", ["binary.jsonl", "binary.parquet"])
def test_binary_rubbish_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UserError, match=f"cannot be read as {name.partition('.')[2].upper()}"):
        load_problems(str(tmp_path / name), "test")


def test_heldout_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", 10)
    task = gsm8k(path, 10)
    with pytest.raises(UserError, match=r"task\.heldout=10: .* holds only 10 problems"):
        task.heldout_problems()


def test_training_file_of_heldout_problems_alone_is_refused(tmp_path: Path) -> None:
    path = str(write_rows(tmp_path / "both.jsonl", 10))
    with pytest.raises(UserError, match="no problem"):
        gsm8k(path, 100, path).training_problems(0, 4, seed=0)

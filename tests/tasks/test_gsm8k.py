"""GSM8K from files: the real ones, and broken ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cppo_lab.errors import UserError
from cppo_lab.tasks.asking import AskedModel
from cppo_lab.tasks.benchmarks import BENCHMARKS
from cppo_lab.tasks.grading.answers import grade
from cppo_lab.tasks.gsm8k import Gsm8kConfig
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.task import Task


def config(
    path: Path | str, heldout: int, heldout_path: Path | str | None = None, **asking: Any
) -> Gsm8kConfig:
    return Gsm8kConfig(
        kind="gsm8k",
        path=str(path),
        heldout_path=heldout_path and str(heldout_path),
        heldout=heldout,
        revision=BENCHMARKS["gsm8k"].revision,
        max_response_tokens=192,
        **asking,
    )


def gsm8k(path: Path | str, heldout: int, heldout_path: Path | str | None = None) -> Task:
    return config(path, heldout, heldout_path).build()


def problems_in(path: Path | str, scratch: Path) -> list[Problem]:
    """All problems of a file, as a held-out set beside one training problem made up for the purpose."""
    other = write_rows(scratch / "other.jsonl", 1, first=10**6)
    return list(gsm8k(other, 10**6, path).heldout_problems())


def write_rows(path: Path, count: int, first: int = 0) -> Path:
    rows = [
        {"question": f"What is {i} and 1?", "answer": f"It is <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1:,}"}
        for i in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "count"), [("train", 7473), ("test", 1319)])
def test_real_files_load_completely_and_their_solutions_grade_correct(
    shared_data: Path, tmp_path: Path, name: str, count: int
) -> None:
    problems = problems_in(shared_data / "gsm8k" / f"{name}.jsonl", tmp_path)
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
    assert problems_in(tmp_path / "data.parquet", tmp_path) == problems_in(jsonl, tmp_path)


def test_line_separators_inside_a_text_do_not_end_the_row(tmp_path: Path) -> None:
    row = {"question": "one\u2028two\u0085three", "answer": "#### 3"}
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert "one\u2028two\u0085three" in problems_in(path, tmp_path)[0].prompt


GOOD = '{"question": "q", "answer": "#### 1"}\n'
BROKEN = {
    "corrupt": (GOOD + '{"question": "q", "ans\n', r"cannot be read as JSONL"),
    "no_keys": (
        GOOD + '{"q": 1}\n',
        r"row 2: needs the columns question, answer \(it has q\); task=custom reads",
    ),
    "not_a_row": (GOOD + "[1, 2]\n", r"row 2: needs the columns question, answer"),
    "not_text": ('{"question": 3, "answer": "#### 1"}\n', r"row 1: question must be text"),
    "no_mark": (
        '{"question": "q", "answer": "it is 7"}\n',
        r"row 1: 'answer' must be a number, or end in '#### N",
    ),
    "no_number": (
        '{"question": "q", "answer": "#### many"}\n',
        r"row 1: 'answer' must be a number, or end in",
    ),
    "null": ('{"question": "q", "answer": null}\n', r"row 1: 'answer' must be text or a number; it is null"),
    "empty": ("", r"contains no problems"),
    "blank": ("\n\n", r"contains no problems"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_refused_in_one_sentence_with_its_name(tmp_path: Path, case: str) -> None:
    text, sentence = BROKEN[case]
    path = tmp_path / f"{case}.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=sentence) as caught:
        problems_in(path, tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.jsonl: no such data file"):
        problems_in(tmp_path / "absent.jsonl", tmp_path)


@pytest.mark.parametrize("name", ["binary.jsonl", "binary.parquet"])
def test_binary_rubbish_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UserError, match=f"cannot be read as {name.partition('.')[2].upper()}"):
        problems_in(tmp_path / name, tmp_path)


def test_heldout_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", 10)
    task = gsm8k(path, 10)
    with pytest.raises(UserError, match=r"task\.heldout=10: .* holds only 10 problems"):
        task.heldout_problems()


def test_training_file_of_heldout_problems_alone_is_refused(tmp_path: Path) -> None:
    path = str(write_rows(tmp_path / "both.jsonl", 10))
    with pytest.raises(UserError, match="no problem"):
        gsm8k(path, 100, path).training_problems(0, 4, seed=0)


def test_bare_numbers_are_references_without_solutions(tmp_path: Path) -> None:
    rows = [{"question": f"What is {i} and 1?", "answer": i + 1} for i in range(6)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = gsm8k(path, 2)
    assert {p.answer for p in task.training_problems(0, 4, seed=0)} == {"1", "2", "3", "4"}
    assert task.supervised_texts() == []
    with pytest.raises(UserError, match="no written solutions to warm a model up with"):
        task.warmup_problems(np.random.default_rng(0), 2, 1, 0.0)


@pytest.mark.parametrize(
    ("model", "prompt", "is_chat", "end"),
    [
        (AskedModel(False), "Question: What is 9 and 1?\nAnswer:", False, "#### 10"),
        (AskedModel(True), "What is 9 and 1?\nPlease reason step by step, and put", False, r"\boxed{10}"),
        (AskedModel(True, True), "What is 9 and 1?\nPlease reason step by step", True, r"\boxed{10}"),
    ],
    ids=["scratch", "base", "instruct"],
)
def test_a_model_is_asked_as_fits_it(
    tmp_path: Path, model: AskedModel, prompt: str, is_chat: bool, end: str
) -> None:
    task = config(write_rows(tmp_path / "train.jsonl", 10), 1).asked_of(model).build()
    (problem,) = task.heldout_problems()
    assert problem.prompt.startswith(prompt)
    assert problem.is_chat is is_chat
    assert problem.solution.endswith(f"It is <<9+1=10>>10.\n{end}")
    assert problem.solution.startswith("It" if is_chat else " It")
    assert task.grade([problem.solution], [problem])[0].correct


@pytest.mark.parametrize(
    ("form", "asks", "states"),
    [
        ("boxed", "\\boxed{}", "\\boxed{10}"),
        ("hashes", "####", "#### 10"),
        ("tag", "<answer>", "<answer>10</answer>"),
        ("line", '"Answer: "', "Answer: 10"),
        ("none", "", "#### 10"),
    ],
)
def test_every_answer_format_is_asked_for_taught_and_graded(
    tmp_path: Path, form: str, asks: str, states: str
) -> None:
    path = write_rows(tmp_path / "train.jsonl", 10)
    prompt = "Solve. {question} {instruction}"
    task = config(path, 1, answer_format=form, prompt=prompt).asked_of(AskedModel(True)).build()
    (problem,) = task.heldout_problems()
    assert problem.prompt.startswith("Solve. What is 9 and 1? ")
    assert asks in problem.prompt
    assert problem.solution.endswith(states)
    assert [v.correct for v in task.grade([f"So\n{states}", "So 10"], [problem] * 2)] == [True, False]
    assert task.grade(["Answer: 10"], [problem])[0].correct is (form == "line")


def test_what_a_model_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", 10)
    base, instruct = AskedModel(True), AskedModel(True, True)
    with pytest.raises(UserError, match=r"task\.chat=true: the model's tokenizer has no chat template"):
        config(path, 1, chat=True).asked_of(base)
    with pytest.raises(
        UserError, match=r"task\.system=Be brief\.: only applies to chat .* has no chat template"
    ):
        config(path, 1, system="Be brief.").asked_of(base)
    with pytest.raises(
        UserError, match=r"task\.system=Be brief\.: only applies to chat .* task\.chat is false"
    ):
        config(path, 1, system="Be brief.", chat=False).asked_of(instruct)
    asked = config(path, 1, system="Be brief.").asked_of(instruct).build().heldout_problems()[0]
    assert (asked.system, asked.is_chat) == ("Be brief.", True)

"""Custom data: every format gives the same problems, and unusable rows are refused by row and column."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_runs import TINY

from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import run_id
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.eval.request import EvaluationRequest
from cppo_lab.tasks.asking import AskedModel
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.problem_set import ProblemSet, ProblemSetConfig
from cppo_lab.tasks.reasoning_gym import ReasoningGymConfig
from cppo_lab.training.run import run

ROWS = [
    {
        "ask": f"What is {i}\u2028plus {i}? “{i}”, he said.",
        "gold": 2 * i,
        "steps": f"{i} and {i}\nmake {2 * i}.",
    }
    for i in range(20)
]
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def write(path: Path, rows: Sequence[Mapping[str, Any]], newline: str = "\n", bom: str = "") -> Path:
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
        return path
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write(bom)
            delimiter = "," if path.suffix == ".csv" else "\t"
            table = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=newline)
            table.writeheader()
            table.writerows(rows)
        return path
    text = json.dumps(rows) if path.suffix == ".json" else newline.join(map(json.dumps, rows)) + newline
    path.write_bytes((bom + text).encode("utf-8"))
    return path


def quoted(path: Path) -> str:
    return f"'{path}'"


def config_of(path: Path, *overrides: str) -> RunConfig:
    fields = ("task.question_column=ask", "task.answer_column=gold", "task.heldout=5")
    pretrained = ("model=pretrained", "model.path=some/model")
    return compose_run(["task=custom", f"task.path={quoted(path)}", *fields, *pretrained, *overrides])


def problems_of(path: Path, *overrides: str) -> ProblemSet:
    task = config_of(path, *overrides).task.asked_of(AskedModel(is_pretrained=True))
    assert isinstance(task, ProblemSetConfig)
    return task.problems()


def everything(found: ProblemSet) -> set[Problem]:
    return {*found.training, *found.heldout}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("newline", "bom"), [("\n", ""), ("\r\n", "\ufeff")])
def test_every_format_gives_the_same_problems(tmp_path: Path, suffix: str, newline: str, bom: str) -> None:
    path = write(tmp_path / f"data{suffix}", ROWS, newline, bom)
    found = problems_of(path, "task.solution_column=steps")
    assert len(found.heldout) == 5
    assert len(found.training) == 15
    expected = {(row["ask"], str(row["gold"])) for row in ROWS}
    assert {(p.prompt.partition("\nPlease")[0], p.answer) for p in everything(found)} == expected
    one = next(problem for problem in everything(found) if problem.answer == "14")
    assert one.solution == " 7 and 7\nmake 14.\n\\boxed{14}"


def test_prompt_extraction_and_grader_are_those_of_the_configuration(tmp_path: Path) -> None:
    rows = [{"a": "Is it", "b": f"{i}?", "gold": "Yes" if i % 2 else "No."} for i in range(8)]
    found = problems_of(
        write(tmp_path / "data.csv", rows),
        "task.question_column='a, b'",
        "task.prompt='Q: {question} A:'",
        "task.answer_format=line",
        "task.grader=text",
    )
    task = config_of(tmp_path / "data.csv", "task.question_column='a,b'", "task.grader=text").task.build()
    assert {p.prompt for p in everything(found)} == {f"Q: Is it {i}? A:" for i in range(8)}
    one = next(p for p in found.training if p.answer == "Yes")
    responses = ["So.\nAnswer: **yes.**", "Answer: No", r"\boxed{YES}", "yes"]
    verdicts = task.grade(responses, [one] * 4)
    assert [verdict.outcome.value for verdict in verdicts] == ["correct", "wrong", "correct", "unparsable"]


def test_mathematical_answers_are_compared_symbolically_if_asked(tmp_path: Path) -> None:
    rows = [{"ask": f"Half of {i}?", "gold": rf"\frac{{{i}}}{{2}}"} for i in range(8)]
    path = write(tmp_path / "data.jsonl", rows)
    with pytest.raises(UserError, match=r"row 1: 'gold' must be a number"):
        problems_of(path)
    task = config_of(path, "task.grader=symbolic").task.build()
    one = next(p for p in task.training_problems(0, 3, 0) if p.answer != r"\frac{0}{2}")
    assert [v.correct for v in task.grade([rf"\boxed{{{one.answer}}}", r"\boxed{0}"], [one] * 2)] == [
        True,
        False,
    ]


def test_problems_split_off_are_the_same_in_any_order_of_the_rows(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    first, second = (
        problems_of(write(tmp_path / f"{i}.csv", rows)) for i, rows in enumerate((ROWS, shuffled))
    )
    assert first.heldout == second.heldout
    repeated = problems_of(write(tmp_path / "repeated.csv", ROWS * 2))
    assert repeated.heldout == first.heldout
    assert not {p.prompt for p in repeated.training} & {p.prompt for p in repeated.heldout}


def test_held_out_file_is_never_trained_on(tmp_path: Path) -> None:
    heldout = write(tmp_path / "heldout.json", ROWS[:8])
    found = problems_of(write(tmp_path / "train.csv", ROWS), f"task.heldout_path={quoted(heldout)}")
    assert len(found.heldout) == 5
    assert len(found.training) == 15


BROKEN: dict[str, tuple[str, str, str]] = {
    "no column": (
        "a.jsonl",
        '{"ask": "q", "answer": 1}\n',
        r"row 1: needs the columns ask, gold .* task\.question_c",
    ),
    "null": (
        "a.jsonl",
        '{"ask": "q", "gold": 1}\n{"ask": "r", "gold": null}\n',
        r"row 2: 'gold' .* it is null",
    ),
    "NaN": ("a.jsonl", '{"ask": "q", "gold": NaN}\n', r"row 1: 'gold' must be text or a number; it is nan"),
    "bool": (
        "a.jsonl",
        '{"ask": "q", "gold": true}\n',
        r"row 1: 'gold' must be text or a number; it is True",
    ),
    "list": ("a.json", '[{"ask": "q", "gold": [1]}]', r"row 1: 'gold' must be text or a number; it is \[1\]"),
    "no text": ("a.jsonl", '{"ask": 7, "gold": 1}\n', r"row 1: ask must be text"),
    "not a row": ("a.jsonl", "[1]\n", r"row 1: needs the columns"),
    "empty cell": ("a.csv", "ask,gold\nq,1\nr,\n", r"row 2: 'gold' must be a number.* it is ''"),
    "short row": ("a.csv", "ask,gold\nq\n", r"cannot be read as CSV \(row 1 has 1 cells; the header has 2"),
    "column twice": (
        "a.tsv",
        "ask\task\nq\t1\n",
        r"cannot be read as TSV \(its header must name every column once",
    ),
    "open quote": ("a.csv", 'ask,gold\n"q,1\n', r"cannot be read as CSV"),
    "no rows": ("a.csv", "ask,gold\n", r"contains no problems"),
    "nothing": ("a.csv", "", r"contains no problems"),
    "too few": ("a.csv", "ask,gold\nq,1\n", r"task\.heldout=5: .* holds only 1 different problems"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    name, text, sentence = BROKEN[case]
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=sentence) as caught:
        config_of(path).task.check_files()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_with_missing_answers_is_refused_by_row_and_column(tmp_path: Path) -> None:
    path = write(tmp_path / "data.parquet", [{"ask": "q", "gold": 1}, {"ask": "r", "gold": None}])
    with pytest.raises(UserError, match=r"row 2: 'gold' must be text or a number; it is (nan|null)"):
        problems_of(path)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task.path=null"], r"task\.path=null: give either task\.path=FILE or task\.dataset"),
        (["task.dataset=a/b"], r"task\.path=x\.csv: give either"),
        (["task.path=null", "task.dataset=a/b"], r"task\.revision=null: must be the commit"),
        (["task.heldout_split=test"], r"task\.heldout_split=test: must be null without a task\.dataset"),
        (["task.prompt=hello"], r"task\.prompt=hello: must contain \{question\}"),
        (["task.grader=exact"], r"task\.grader=exact: must be 'number', 'symbolic' or 'text'"),
        (["task.answer_field=gold"], r"task\.answer_field: unknown key"),
        (["task.answer_format=box"], r"task\.answer_format=box: must be 'boxed', 'hashes'"),
    ],
)
def test_inconsistent_settings_are_refused_before_data_are_read(overrides: list[str], sentence: str) -> None:
    base = ["task=custom", "task.path=x.csv", "model=pretrained", "model.path=some/model"]
    with pytest.raises(UserError, match=sentence):
        compose_run([*base, *overrides])


def test_from_scratch_model_is_refused_without_solutions() -> None:
    with pytest.raises(
        UserError, match=r"model\.kind=scratch: must be pretrained .*task\.solution_column=COLUMN"
    ):
        compose_run(["task=custom", "task.path=x.csv"])


def test_hub_data_are_read_from_their_split_at_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def hub_rows(*arguments: object) -> list[dict[str, Any]]:
        asked.append(arguments)
        return ROWS if arguments[2] == "train" else ROWS[:8]

    monkeypatch.setattr("cppo_lab.tasks.benchmarks.hub_rows", hub_rows)
    commit = "0123456789" * 4
    hub = ["task.path=null", "task.dataset=me/sums", "task.subset=main", f"task.revision='{commit}'"]
    config = config_of(Path("unused"), *hub, "task.heldout_split=validation")
    config.task.check_files()
    assert asked == [], "the hub is asked only when a run starts"
    task = config.task.build()
    assert (len(task.heldout_problems()), len(task.training_problems(0, 15, 0))) == (5, 15)
    assert asked == [("me/sums", "main", split, commit) for split in ("train", "validation")]


def test_missing_solution_column_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", ROWS)
    with pytest.raises(UserError, match=r"row 1: needs the column work \(it has ask, gold, steps\)"):
        problems_of(path, "task.solution_column=work")


def test_bytes_of_the_files_are_in_a_runs_identity_and_their_paths_are_not(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, ROWS) for name in ("a.csv", "b.csv"))
    assert run_id(config_of(first)) == run_id(config_of(second))
    assert run_id(config_of(first)) != run_id(config_of(write(tmp_path / "c.csv", ROWS[:10])))
    assert run_id(config_of(first)) != run_id(config_of(first, f"task.heldout_path={quoted(second)}"))


def test_a_benchmark_reads_the_same_files(tmp_path: Path) -> None:
    data = str(write(tmp_path / "data.csv", ROWS, "\r\n", "\ufeff"))
    asked = EvaluationRequest("custom", data=data, question_column="ask", answer_column="gold").questions()
    assert [(q.question, q.answer) for q in asked] == [(row["ask"], str(row["gold"])) for row in ROWS]


@pytest.mark.slow
def test_from_scratch_model_trains_on_a_file(tmp_path: Path) -> None:
    rows = [
        {"ask": f"{i} + {j} = ?", "gold": i + j, "steps": f"{i} + {j}"} for i in range(8) for j in range(8)
    ]
    config = compose_run(
        [
            *(override for override in TINY if not override.startswith("task.")),
            f"paths.output={quoted(tmp_path)}",
            "task=custom",
            "task.heldout=16",
            f"task.path={quoted(write(tmp_path / 'sums.csv', rows))}",
            "task.question_column=ask",
            "task.answer_column=gold",
            "task.solution_column=steps",
            "task.prompt='{question}'",
            "task.max_response_tokens=16",
            "warmup=gsm8k",
            "warmup.steps=1",
            "warmup.max_steps=1",
            "trainer.steps=2",
        ]
    )
    folder = run(config)
    assert folder.status == "FINISHED"
    assert folder.info["inputs"].keys() == {"task.path"}
    assert len(folder.rows("metrics.jsonl")) == 3


def test_the_examples_of_the_docs_name_real_keys() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"task\.(\w+)=", text))
    known = (
        config_of(Path("x.csv")).task.model_dump().keys() | ReasoningGymConfig.model_fields.keys() | {"words"}
    )
    assert keys <= known

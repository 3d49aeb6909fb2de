"""Benchmarks: column names, normalised reference answers, and broken files."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cppo_lab.errors import UserError
from cppo_lab.tasks.benchmarks import BENCHMARKS, CUSTOM, Question, benchmark, duplicates, load_questions


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(list(rows)), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != CUSTOM])
def test_hub_data_have_a_pinned_revision(name: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", benchmark(name).revision)
    assert benchmark(name).hub_id


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_columns_can_be_named_and_joined(tmp_path: Path, suffix: str) -> None:
    rows = [{"body": "Two and two.", "ask": "How many?", "gold": 4}]
    data = write(tmp_path / f"data{suffix}", rows)
    found = load_questions(benchmark("custom", "body, ask", "gold"), data)
    assert [(q.question, q.answer) for q in found] == [("Two and two. How many?", "4")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.JSONL", b'\xef\xbb\xbf{"problem": "How many?", "gold": "4"}\r\n'),
        ("data.json.gz", gzip.compress(b'[{"problem": "How many?", "gold": 4}]')),
        ("data.Csv.GZ", gzip.compress(b"\xef\xbb\xbfproblem,gold\r\nHow many?,4\r\n")),
        ("data.TSV", b"problem\tgold\nHow many?\t4\n"),
        ("data.gz", gzip.compress(b'{"problem": "How many?", "gold": 4}')),
    ],
    ids=["jsonl", "json.gz", "csv.gz", "tsv", "gz"],
)
def test_packed_files_any_case_marks_and_line_ends_are_read(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    found = load_questions(benchmark("custom", "problem", "gold"), str(tmp_path / name))
    assert [(q.question, q.answer) for q in found] == [("How many?", "4")]


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b'{"problem": 1}' * 99)[:-9]], ids=["plain", "cut"]
)
def test_a_broken_packed_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.jsonl.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"data\.jsonl\.gz: cannot be read as JSONL"):
        load_questions(benchmark("custom"), str(tmp_path / "data.jsonl.gz"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("so <<1+1=2>>2\n#### 2", "2"),
        ("#### 1,234", "1234"),
        (51.0, "51"),
        (18, "18"),
        ("033", "33"),
        ("-5", "-5"),
        ("0.50", "0.5"),
    ],
)
def test_numeric_references_are_normalised(tmp_path: Path, given: Any, expected: str) -> None:
    data = write(tmp_path / "data.jsonl", [{"question": "?", "answer": given}])
    assert load_questions(benchmark("gsm8k"), data)[0].answer == expected


def test_symbolic_references_are_kept_verbatim(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"problem": "?", "answer": r"\frac{1}{2}"}])
    assert load_questions(benchmark("math500"), data)[0].answer == r"\frac{1}{2}"


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([{"question": "?"}], ["row 1", "answer", "--answer-column"]),
        (
            [{"question": "?", "answer": "1"}, {"question": "?", "answer": "one"}],
            ["row 2", "'one'", "number"],
        ),
        ([{"question": "", "answer": "1"}], ["row 1", "question", "text"]),
        ([{"question": 3, "answer": "1"}], ["row 1", "question", "text"]),
        ([], ["no problems"]),
    ],
)
def test_unusable_rows_are_refused_in_one_sentence(
    tmp_path: Path, rows: list[dict[str, Any]], named: list[str]
) -> None:
    data = write(tmp_path / "data.jsonl", rows)
    with pytest.raises(UserError) as error:
        load_questions(benchmark("gsm8k"), data)
    assert all(word in str(error.value) for word in named)


def test_unknown_benchmark_is_refused_with_the_closest_name() -> None:
    with pytest.raises(UserError, match="math500"):
        benchmark("math5000")


def test_repeated_problems_are_counted() -> None:
    assert duplicates([Question("a", "1", {}), Question("b", "1", {}), Question("a", "2", {})]) == 1


@pytest.mark.parametrize(
    ("name", "file", "count", "first"),
    [
        ("gsm8k", "gsm8k/test.jsonl", 1319, "18"),
        ("math500", "math500/test.jsonl", 500, r"\left( 3, \frac{\pi}{2} \right)"),
        ("aime24", "aime24/test.jsonl", 30, "204"),
        ("svamp", "svamp/SVAMP.json", 1000, "51"),
    ],
)
def test_real_files_load_completely(shared_data: Path, name: str, file: str, count: int, first: str) -> None:
    found = load_questions(benchmark(name), str(shared_data / file))
    assert len(found) == count
    assert found[0].answer == first
    assert all(question.question.strip() for question in found)

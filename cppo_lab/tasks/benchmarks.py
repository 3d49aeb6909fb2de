"""Questions with reference answers: the benchmarks of `cppo-lab eval`, and data with columns of any name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError, one_of
from cppo_lab.tasks.grading.answers import Comparison, plain_text
from cppo_lab.tasks.grading.numbers import normalised, parse_number
from cppo_lab.tasks.rows import hub_rows, local_rows


@dataclass(frozen=True)
class Question:
    """A question with its reference answer; `row` is the unchanged row of data."""

    question: str
    answer: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's problems are, and which columns hold them.

    `question` names one column, or several that are joined by a space. `comparison` is how answers are compared (see
    `AnswerFormat`). Without a `hub_id`, a local file is needed.
    """

    name: str
    question: tuple[str, ...]
    answer: str
    comparison: Comparison
    hub_id: str | None = None
    hub_config: str | None = None
    split: str = "test"
    revision: str = ""

    @property
    def symbolic(self) -> bool:
        """Whether references may be mathematical expressions."""
        return self.comparison == "symbolic"


CUSTOM = "custom"
GSM8K = "gsm8k"
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            GSM8K,
            ("question",),
            "answer",
            "number",
            "openai/gsm8k",
            "main",
            revision="e53f048856ff4f594e959d75785d2c2d37b678ee",
        ),
        Benchmark(
            "math500",
            ("problem",),
            "answer",
            "symbolic",
            "HuggingFaceH4/MATH-500",
            revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        ),
        Benchmark(
            "aime24",
            ("problem",),
            "answer",
            "number",
            "HuggingFaceH4/aime_2024",
            split="train",
            revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        ),
        Benchmark(
            "aime25",
            ("problem",),
            "answer",
            "number",
            "math-ai/aime25",
            revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        ),
        Benchmark(
            "aime26",
            ("problem",),
            "answer",
            "number",
            "MathArena/aime_2026",
            split="train",
            revision="d2de22f3c656b4f56cf8981212186377d1e23bc3",
        ),
        Benchmark(
            "svamp",
            ("Body", "Question"),
            "Answer",
            "number",
            "ChilleD/SVAMP",
            revision="5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef",
        ),
        Benchmark(CUSTOM, ("question",), "answer", "symbolic"),
    )
}


def benchmark(name: str, question: str | None = None, answer: str | None = None) -> Benchmark:
    """The benchmark of that name, with other columns if given (several: separated by commas)."""
    if name not in BENCHMARKS:
        raise one_of("task", name, BENCHMARKS)
    found = BENCHMARKS[name]
    columns = column_names(question) if question else found.question
    return replace(found, question=columns, answer=answer or found.answer)


def column_names(text: str) -> tuple[str, ...]:
    """Names of columns separated by commas."""
    return tuple(name.strip() for name in text.split(","))


def cell_text(value: Any, where: str, column: str) -> str:
    """A cell as text. Raises UserError for one that holds neither text nor a finite number."""
    is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    if isinstance(value, str) or (is_number and math.isfinite(value)):
        return str(value)
    shown = "null" if value is None else f"{value!r:.40}"
    raise UserError(f"{where}: '{column}' must be text or a number; it is {shown}.")


def _answer(text: str, benchmark: Benchmark, where: str) -> str:
    """The reference answer in canonical form: behind `####` where there is one, numbers without padding."""
    comparison, column = benchmark.comparison, benchmark.answer
    if comparison == "text":
        if not plain_text(text):
            raise UserError(f"{where}: '{column}' is empty.")
        return text.strip()
    text = text.rpartition("####")[2].strip()
    number = parse_number(text)
    if number is not None:
        return normalised(number)
    if comparison == "number":
        other = " For other answers, take the grader symbolic or text." if benchmark.name == CUSTOM else ""
        raise UserError(
            f"{where}: '{column}' must be a number, or end in '#### NUMBER'; it is {text[:40]!r}.{other}"
        )
    if not text:
        raise UserError(f"{where}: '{column}' is empty.")
    return text


_OTHER_COLUMNS = "name others by --question-column and --answer-column"


def _question(row: Any, benchmark: Benchmark, where: str, remedy: str) -> Question:
    needed = (*benchmark.question, benchmark.answer)
    if not isinstance(row, dict) or any(column not in row for column in needed):
        have = ", ".join(sorted(map(str, row))) if isinstance(row, dict) else type(row).__name__
        raise UserError(f"{where}: needs the columns {', '.join(needed)} (it has {have}); {remedy}.")
    parts = [row[column] for column in benchmark.question]
    if not all(isinstance(part, str) and part.strip() for part in parts):
        raise UserError(f"{where}: {', '.join(benchmark.question)} must be text.")
    # A single column is kept to the letter: protocols hash it.
    text = parts[0] if len(parts) == 1 else " ".join(part.strip() for part in parts)
    answer = cell_text(row[benchmark.answer], where, benchmark.answer)
    return Question(text, _answer(answer, benchmark, where), row)


def load_questions(
    benchmark: Benchmark, path: str | None, split: str | None = None, remedy: str = _OTHER_COLUMNS
) -> list[Question]:
    """The problems of a benchmark, from a local file or else from the hub.

    Raises UserError if they cannot be read, or if a row lacks a column (`remedy` says what to do then) or has no usable
    answer.
    """
    if path:
        rows, source = local_rows(Path(path)), path
    elif benchmark.hub_id:
        source = benchmark.hub_id
        rows = hub_rows(source, benchmark.hub_config, split or benchmark.split, benchmark.revision)
    else:
        raise UserError(f"task={benchmark.name}: needs a file of problems; give --data FILE.")
    if not rows:
        raise UserError(f"{source}: contains no problems.")
    return [
        _question(row, benchmark, f"{source}, row {number}", remedy)
        for number, row in enumerate(rows, start=1)
    ]


def duplicates(questions: Sequence[Question]) -> int:
    """How many problems repeat an earlier one: a data set that holds each 32 times counts each 32 times."""
    return len(questions) - len({question.question for question in questions})

"""The folder of one evaluation. An evaluation that was killed resumes from the responses in it.

request.json     the options, and what determines the results
responses.jsonl  one line per sampled response, appended batch by batch
problems.jsonl   every response with its scores, in the order of the problems
results.json     the metrics; with greedy decoding the same bytes however often the evaluation was interrupted
timings.json     wall-clock time and tokens per second
lm-eval/         the same results in the files and keys of lm-evaluation-harness
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cppo_lab.errors import UserError
from cppo_lab.eval.text_engine import Request, Response
from cppo_lab.files import jsonable, read_log, read_object, write_atomically
from cppo_lab.tracking.run_folder import LOCK_FILE

RESPONSES, PROBLEMS, RESULTS, TIMINGS = "responses.jsonl", "problems.jsonl", "results.json", "timings.json"


class EvaluationFolder:
    """Reads and writes one evaluation folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lock(self) -> FileLock:
        """Acquire the folder's lock. Raises UserError if another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK_FILE)
        try:
            lock.acquire(timeout=1.0)
        except Timeout as error:
            raise UserError(f"evaluation {self.path.name}: another process is working on it.") from error
        return lock

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file."""
        target = self.path / name
        target.parent.mkdir(exist_ok=True)
        write_atomically(target, json.dumps(jsonable(content), indent=2, ensure_ascii=False) + "\n")

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a JSONL file."""
        target = self.path / name
        target.parent.mkdir(exist_ok=True)
        lines = (json.dumps(jsonable(row)) + "\n" for row in rows)
        write_atomically(target, "".join(lines))

    def read(self, name: str) -> dict[str, Any]:
        """The content of a JSON file; empty if there is none."""
        return read_object(self.path / name)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of a JSONL file."""
        return read_log(self.path / name)

    def responses(self) -> dict[tuple[int, int], Response]:
        """The responses sampled so far, by problem and sample."""
        return {
            (row["problem"], row["sample"]): Response(row["text"], row["tokens"], row["finished"])
            for row in self.rows(RESPONSES)
        }

    def append(self, requests: Sequence[Request], responses: Sequence[Response]) -> None:
        """Append a batch of responses, after removing a last line that a crash left incomplete."""
        path = self.path / RESPONSES
        lines = [
            json.dumps(
                {
                    "problem": request.problem,
                    "sample": request.sample,
                    "text": response.text,
                    "tokens": response.tokens,
                    "finished": response.finished,
                }
            )
            for request, response in zip(requests, responses, strict=True)
        ]
        with path.open("ab+") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            file.write("".join(f"{line}\n" for line in lines).encode("ascii"))

"""Answers graded per second: numbers in worker processes and in this one, against math-verify on the same answers.

    python benchmarks/grading.py                             GSM8K and MATH-500 where `../shared/data` has them
    python benchmarks/grading.py --gsm8k test.jsonl          another file; without one, problems of the embedded task
    python benchmarks/grading.py --workers 4 --json results.json

Every second answer is wrong: the solution of another problem. Rates are medians over `--repeats` passes in one run,
after one that starts the workers:

- workers: `Grader`, as training and evaluation use it, with the transport to its processes and back;
- this process: the same rules, called in a loop;
- math-verify: `verify(parse(reference), parse(completion))` with its defaults, in a loop in this process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cppo_lab.tasks.benchmarks import benchmark, load_questions
from cppo_lab.tasks.chain import draw_problem
from cppo_lab.tasks.grading.answers import grade
from cppo_lab.tasks.grading.pool import Grader

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CHAIN_PROBLEMS, CHAIN_STEPS = 1_319, 6
PEER_ANSWERS = 300
"""math-verify grades so many of the answers; it is slow."""


@dataclass(frozen=True)
class Answers:
    """Completions with the reference answers that they are graded against; every second one is wrong."""

    name: str
    completions: list[str]
    references: list[str]

    @classmethod
    def of(cls, name: str, solutions: Sequence[str], references: Sequence[str]) -> Answers:
        """Own and others' solutions by turns."""
        shifted = [*solutions[1:], *solutions[:1]]
        mixed = [
            (own, other)[place % 2] for place, (own, other) in enumerate(zip(solutions, shifted, strict=True))
        ]
        return cls(name, mixed, list(references))

    def first(self, count: int) -> Answers:
        """The first `count` of them."""
        return Answers(self.name, self.completions[:count], self.references[:count])


def gsm8k_answers(path: Path) -> Answers:
    """GSM8K's reference solutions, or those of the embedded task where there is no such file."""
    if not path.is_file():
        rng = np.random.default_rng(0)
        problems = [draw_problem(rng, CHAIN_STEPS) for _ in range(CHAIN_PROBLEMS)]
        return Answers.of("chain", [p.solution for p in problems], [p.answer for p in problems])
    questions = load_questions(benchmark("gsm8k"), str(path))
    return Answers.of("gsm8k", [str(q.row["answer"]) for q in questions], [q.answer for q in questions])


def math500_answers(path: Path) -> Answers | None:
    """MATH-500's reference solutions, which end in a box; None where there is no such file."""
    if not path.is_file():
        return None
    questions = load_questions(benchmark("math500"), str(path))
    return Answers.of("math500", [str(q.row["solution"]) for q in questions], [q.answer for q in questions])


def per_second(answers: Answers, call: Callable[[Answers], int], repeats: int) -> tuple[float, int]:
    """Median rate over `repeats` passes after one that does not count, and how many answers were right."""
    right = call(answers)
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call(answers)
        taken.append(time.perf_counter() - start)
    return len(answers.completions) / statistics.median(taken), right


def in_this_process(answers: Answers) -> int:
    """Right answers, by the lab's rules without its processes."""
    return sum(grade(*pair).correct for pair in zip(answers.completions, answers.references, strict=True))


def by_math_verify(answers: Answers) -> int:
    """Right answers, by math-verify alone."""
    import math_verify.grader
    from math_verify import parse, verify

    assert math_verify.grader.sympy_numeric_eq.__module__ == "math_verify.grader", (
        "the lab has replaced a part"
    )
    return sum(
        verify(parse(reference), parse(completion))
        for completion, reference in zip(answers.completions, answers.references, strict=True)
    )


def by_workers(answers: Answers, workers: int, symbolic: bool, repeats: int) -> tuple[float, int]:
    """Rate and right answers of a grader with its processes."""
    with Grader(symbolic=symbolic, workers=workers) as grader:

        def call(asked: Answers) -> int:
            return sum(verdict.correct for verdict in grader.grade(asked.completions, asked.references))

        return per_second(answers, call, repeats)


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description="Answers graded per second.")
    parser.add_argument("--gsm8k", type=Path, default=DATA / "gsm8k" / "test.jsonl")
    parser.add_argument("--math500", type=Path, default=DATA / "math500" / "test.jsonl")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    numbers, mathematics = gsm8k_answers(options.gsm8k), math500_answers(options.math500)
    few = numbers.first(PEER_ANSWERS)
    cases = [
        (numbers, f"{options.workers} workers", by_workers(numbers, options.workers, False, options.repeats)),
        (numbers, "this process", per_second(numbers, in_this_process, options.repeats)),
        (few, "math-verify", per_second(few, by_math_verify, 1)),
    ]
    if mathematics is not None:
        cases.append(
            (
                mathematics,
                f"{options.workers} workers",
                by_workers(mathematics, options.workers, True, max(1, options.repeats // 2)),
            )
        )
    peer = next(rate for _, how, (rate, _) in cases if how == "math-verify")
    print(
        f"{'answers':10}{'graded by':16}{'number':>8}{'right':>8}{'per second':>12}{'times math-verify':>19}"
    )
    results = []
    for answers, how, (rate, right) in cases:
        ratio = rate / peer if answers.name == numbers.name else None
        shown = "" if ratio is None else f"{ratio:.1f}"
        count = len(answers.completions)
        print(f"{answers.name:10}{how:16}{count:8}{right:8}{rate:12.0f}{shown:>19}")
        results.append(
            {
                "answers": answers.name,
                "graded_by": how,
                "number": count,
                "right": right,
                "per_second": rate,
                "times_math_verify": ratio,
            }
        )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Paired comparison of two finished evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cppo_lab.errors import UserError
from cppo_lab.eval.folder import PROBLEMS, RESULTS, EvaluationFolder
from cppo_lab.eval.statistics import Comparison, compare
from cppo_lab.tracking.find_run import find_folder

# Two evaluations are comparable if these are equal; other settings that differ are reported.
_SAME = ("task", "protocol", "problems")
_REPORTED = ("samples_per_problem", "decoding")


def find_evaluation(root: Path, name: str) -> EvaluationFolder:
    """Find a finished evaluation by its path, its folder's name, or the ID at the end of it.

    Raises UserError if there is none, if several match, or if it is unfinished.
    """
    folder = EvaluationFolder(find_folder(root / "evals", name, "--compare", "evaluation", "request.json"))
    if not folder.read(RESULTS):
        raise UserError(f"--compare {name}: this evaluation is not finished; run its command again.")
    return folder


def _means(folder: EvaluationFolder, metric: str) -> NDArray[np.float64]:
    """Each problem's share of correct responses by one metric, [problems]."""
    by_problem: dict[int, list[float]] = {}
    for row in folder.rows(PROBLEMS):
        by_problem.setdefault(row["id"], []).append(float(row["verdicts"][metric] == "correct"))
    return np.array([np.mean(by_problem[i]) for i in sorted(by_problem)])


def compare_evaluations(first: EvaluationFolder, second: EvaluationFolder) -> dict[str, Any]:
    """Compare B (second) with A (first) on the same problems, by every metric of their protocol.

    Raises UserError if task, protocol or problems differ.
    """
    a, b = first.read(RESULTS), second.read(RESULTS)
    for key in _SAME:
        if a[key] != b[key]:
            shown = "their problems differ" if key == "problems" else f"{key} is {a[key]} and {b[key]}"
            raise UserError(f"--compare {first.path.name} {second.path.name}: not comparable; {shown}.")
    found: dict[str, Comparison] = {
        metric: compare(_means(first, metric), _means(second, metric)) for metric in a["metrics"]
    }
    return {
        "a": {"folder": first.path.name, "model": a["model"]["name"], "accuracy": a["accuracy"]},
        "b": {"folder": second.path.name, "model": b["model"]["name"], "accuracy": b["accuracy"]},
        "n": a["n"],
        "metrics": {metric: vars(comparison) for metric, comparison in found.items()},
        "different_settings": [key for key in _REPORTED if a[key] != b[key]],
    }

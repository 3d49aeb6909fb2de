"""Two finished evaluations against each other, problem by problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cppo_lab.errors import UserError, near_miss
from cppo_lab.eval.folder import PROBLEMS, RESULTS, EvaluationFolder
from cppo_lab.eval.statistics import Comparison, compare

# What must be the same for two accuracies to be about the same thing.
_SAME = ("task", "protocol", "problems")
_WORTH_SAYING = ("samples_per_problem", "decoding")


def find_evaluation(root: Path, name: str) -> EvaluationFolder:
    """The evaluation that `name` means: its path, its folder's name, or the ID at its end.

    Raises UserError where there is none, several, or an unfinished one.
    """
    folders = sorted(path for path in (root / "evals").glob("*") if path.is_dir())
    found = [Path(name)] if (Path(name) / "request.json").is_file() else []
    found = found or [path for path in folders if path.name == name or path.name.endswith(f"-{name}")]
    if len(found) != 1:
        names = [path.name for path in folders]
        which = "several evaluations have it" if found else f"no such evaluation in {root / 'evals'}"
        raise UserError(f"--compare {name}: {which}.{'' if found else near_miss(name, names)}")
    folder = EvaluationFolder(found[0])
    if not folder.read(RESULTS):
        raise UserError(f"--compare {name}: this evaluation is not finished; run its command again.")
    return folder


def _means(folder: EvaluationFolder, metric: str) -> NDArray[np.float64]:
    """Each problem's share of right responses by one metric, [problems]."""
    by_problem: dict[int, list[float]] = {}
    for row in folder.rows(PROBLEMS):
        by_problem.setdefault(row["id"], []).append(float(row["verdicts"][metric] == "correct"))
    return np.array([np.mean(by_problem[i]) for i in sorted(by_problem)])


def compare_evaluations(first: EvaluationFolder, second: EvaluationFolder) -> dict[str, Any]:
    """B against A on the same problems, by every metric of their protocol.

    Raises UserError where task, protocol or problems differ.
    """
    a, b = first.read(RESULTS), second.read(RESULTS)
    for key in _SAME:
        if a[key] != b[key]:
            shown = "they have other problems" if key == "problems" else f"{key} is {a[key]} and {b[key]}"
            raise UserError(
                f"--compare {first.path.name} {second.path.name}: cannot be compared problem by problem; {shown}."
            )
    found: dict[str, Comparison] = {
        metric: compare(_means(first, metric), _means(second, metric)) for metric in a["metrics"]
    }
    return {
        "a": {"folder": first.path.name, "model": a["model"]["name"], "accuracy": a["accuracy"]},
        "b": {"folder": second.path.name, "model": b["model"]["name"], "accuracy": b["accuracy"]},
        "n": a["n"],
        "metrics": {metric: vars(comparison) for metric, comparison in found.items()},
        "different_settings": [key for key in _WORTH_SAYING if a[key] != b[key]],
    }

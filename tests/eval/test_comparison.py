"""Two evaluations of the same problems against each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import starting, tiny_config

from cppo_lab.training.checkpoint import save_checkpoint

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(output: Path, tmp_path: Path) -> dict[str, str]:
    """The tiny starting policy, and one that was shaken until it answers worse."""
    policy = starting(tiny_config(output))
    save_checkpoint(tmp_path / "good", policy)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    save_checkpoint(tmp_path / "bad", policy)
    return {name: str(tmp_path / name) for name in ("good", "bad")}


def evaluate(invoke: Invoke, model: str, output: Path, *more: str) -> dict[str, Any]:
    code, out, err = invoke(
        *("eval", "chain", "--steps", "1", "--model", model, "-o", str(output), "--json"),
        *("--max-new-tokens", "18", "--limit", "64", *more),
    )
    assert code == 0, err
    result: dict[str, Any] = json.loads(out)
    return result


def test_paired_differences_are_counted_problem_by_problem(
    models: dict[str, str], invoke: Invoke, tmp_path: Path
) -> None:
    output = tmp_path / "o"
    results = {name: evaluate(invoke, path, output, "--no-track") for name, path in models.items()}
    rows = {
        name: [json.loads(line) for line in (Path(r["folder"]) / "problems.jsonl").read_text().splitlines()]
        for name, r in results.items()
    }
    names = [Path(results[name]["folder"]).name for name in ("bad", "good")]
    code, out, err = invoke("eval", "--compare", *names, "-o", str(output), "--json")
    assert code == 0, err
    found = json.loads(out)["metrics"]["graded"]
    pairs = [(a["correct"], b["correct"]) for a, b in zip(rows["bad"], rows["good"], strict=True)]
    assert found["better"] == pairs.count((False, True)) > 0
    assert found["worse"] == pairs.count((True, False))
    assert found["difference"] == pytest.approx(results["good"]["accuracy"] - results["bad"]["accuracy"])
    code, out, _ = invoke("eval", "--compare", *names, "-o", str(output))
    assert code == 0
    assert "McNemar" in out


def test_other_problems_are_not_compared(models: dict[str, str], invoke: Invoke, tmp_path: Path) -> None:
    output = tmp_path / "o"
    first = evaluate(invoke, models["good"], output, "--no-track")
    second = evaluate(invoke, models["good"], output, "--no-track", "--limit", "32")
    names = [Path(result["folder"]).name for result in (first, second)]
    code, _, err = invoke("eval", "--compare", *names, "-o", str(output))
    assert code == 2
    assert "not comparable; their problems differ" in err

"""Two evaluations of the same problems against each other, and the MLflow run of one."""

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


def test_results_reach_mlflow_once(models: dict[str, str], invoke: Invoke, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    output = tmp_path / "o"
    arguments = ("-k", "2", "--limit", "8")
    result = evaluate(invoke, models["good"], output, *arguments)
    assert evaluate(invoke, models["good"], output, *arguments) == result
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cppo-lab-evals")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["task"] == "chain"
    assert run.data.params["samples"] == "2"
    assert run.data.metrics["eval/chain/avg_at_2"] == pytest.approx(result["accuracy"])
    assert run.data.metrics["eval/chain/pass_at_2"] >= run.data.metrics["eval/chain/pass_at_1"]
    verdicts = [v for k, v in run.data.metrics.items() if k.startswith("eval/chain/grader/")]
    assert sum(verdicts) == 16
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {
        "results.json",
        "problems.jsonl",
    }


def test_a_store_that_cannot_be_used_costs_no_result(
    models: dict[str, str], invoke: Invoke, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.db"
    broken.write_text("no database", encoding="utf-8")
    code, out, _ = invoke(
        *("eval", "chain", "--steps", "1", "--model", models["good"], "-o", str(tmp_path / "o")),
        *("--limit", "4", "--max-new-tokens", "18", "--tracking-uri", f"sqlite:///{broken}"),
    )
    assert code == 0
    assert "Warning" in out
    assert list((tmp_path / "o").glob("evals/*/results.json"))

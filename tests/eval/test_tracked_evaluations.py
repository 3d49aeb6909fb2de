"""The MLflow record of an evaluation says what its folder says."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tiny_runs import starting, tiny_config

from cppo_lab.tracking.mlflow_names import RUN_ID_TAG
from cppo_lab.training.checkpoint import save_checkpoint

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(output: Path, tmp_path: Path, empty_store: Path, invoke: Invoke) -> Path:
    """A finished evaluation, tracked in its output folder's store."""
    save_checkpoint(tmp_path / "model", starting(tiny_config(output)))
    shutil.copy(empty_store, (tmp_path / "o").mkdir() or tmp_path / "o" / "mlflow.db")
    return evaluate(invoke, tmp_path)


def command(root: Path) -> list[str]:
    asked = ["--steps", "1", "-k", "2", "--limit", "8", "--max-new-tokens", "18"]
    return ["eval", "chain", "--model", str(root / "model"), "-o", str(root / "o"), *asked]


def evaluate(invoke: Invoke, root: Path) -> Path:
    code, out, err = invoke(*command(root), "--json")
    assert code == 0, err
    return Path(json.loads(out)["folder"])


def records(root: Path) -> tuple[MlflowClient, list[Run]]:
    client = MlflowClient(f"sqlite:///{root / 'o' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cppo-lab-evals")
    return client, list(client.search_runs([experiment.experiment_id]))


def sync(invoke: Invoke, root: Path, *more: str) -> tuple[int, str]:
    code, out, err = invoke("sync", "--all", "-o", str(root / "o"), *more)
    assert not err
    return code, out


def test_results_reach_mlflow_once(folder: Path, tmp_path: Path, invoke: Invoke) -> None:
    assert evaluate(invoke, tmp_path) == folder
    result = json.loads((folder / "results.json").read_text())
    client, (run,) = records(tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.params["task"] == "chain"
    assert run.data.params["samples"] == "2"
    assert run.data.metrics["eval/chain/avg_at_2"] == pytest.approx(result["accuracy"])
    assert run.data.metrics["eval/chain/pass_at_2"] >= run.data.metrics["eval/chain/pass_at_1"]
    verdicts = [v for k, v in run.data.metrics.items() if k.startswith("eval/chain/grader/")]
    assert sum(verdicts) == 16
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files >= {"results.json", "problems.jsonl"}
    assert sync(invoke, tmp_path, "--check") == (0, "1 record compared, 0 differ.\n")


def test_what_the_store_lost_is_told_and_sent_again(folder: Path, tmp_path: Path, invoke: Invoke) -> None:
    client, (run,) = records(tmp_path)
    with sqlite3.connect(tmp_path / "o" / "mlflow.db") as store:
        store.execute("DELETE FROM metrics WHERE key = 'eval/chain/avg_at_2'")
        store.execute("DELETE FROM latest_metrics WHERE key = 'eval/chain/avg_at_2'")
    shutil.rmtree(Path(client.get_run(run.info.run_id).info.artifact_uri.removeprefix("file://")))
    code, out = sync(invoke, tmp_path, "--check")
    assert code == 4
    assert f"{folder.name}: 1 metric values missing; files results.json, problems.jsonl, timings.json" in out
    code, out, _ = invoke("sync", folder.name, "-o", str(tmp_path / "o"))
    assert (code, out.splitlines()[-1]) == (0, "1 record compared, 1 mended.")
    assert sync(invoke, tmp_path, "--check") == (0, "1 record compared, 0 differ.\n")
    client.delete_run(run.info.run_id)
    # The evaluation's own command mends as well.
    evaluate(invoke, tmp_path)
    assert sync(invoke, tmp_path, "--check") == (0, "1 record compared, 0 differ.\n")


def test_record_of_an_earlier_version_is_taken_for_the_evaluation(
    folder: Path, tmp_path: Path, invoke: Invoke
) -> None:
    client, (run,) = records(tmp_path)
    client.delete_tag(run.info.run_id, RUN_ID_TAG)
    (folder / "mlflow.json").write_text(json.dumps({"default": run.info.run_id}))
    assert sync(invoke, tmp_path)[1].endswith("1 record compared, 1 mended.\n")
    _, (same,) = records(tmp_path)
    assert same.info.run_id == run.info.run_id
    assert same.data.tags[RUN_ID_TAG] == folder.name


def test_a_store_that_cannot_be_used_costs_no_result_and_gets_it_later(
    folder: Path, tmp_path: Path, invoke: Invoke, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cppo_lab.cli.mirrors._UNSENT", {})
    other = tmp_path / "other.db"
    other.write_text("no database", encoding="utf-8")
    code, out, err = invoke(*command(tmp_path), "--tracking-uri", f"sqlite:///{other}")
    assert code == 4
    assert "Already finished" in out
    assert f"Warning: tracking.uri=sqlite:///{other}: the MLflow store cannot be used" in err
    assert err.splitlines()[-1].startswith(f"Not all was sent to MLflow at sqlite:///{other}: {folder.name}.")
    monkeypatch.setattr("cppo_lab.cli.mirrors._UNSENT", {})
    code, out = sync(invoke, tmp_path, "--check")
    assert code == 4
    assert f"{folder.name}: cannot be compared" in out
    shutil.copy(empty_store, other)
    assert sync(invoke, tmp_path)[1].endswith("2 records compared, 1 mended.\n")
    assert sync(invoke, tmp_path, "--check") == (0, "2 records compared, 0 differ.\n")

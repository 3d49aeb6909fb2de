"""Whole sweeps in processes of their own: finished runs are shared and never done again, and MLflow shows them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tiny_runs import TINY, files_with_times, lab

from cppo_lab.config.compose import compose_run
from cppo_lab.tracking.run_folder import RunFolder

pytestmark = pytest.mark.slow

SETTINGS = [override for override in TINY if override != "tracking=none"]
SWEEP = ["sweep", "algo=grpo,cppo", "seed=0,1", *SETTINGS]


@pytest.fixture(scope="module")
def swept(warmed_up: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An output folder after a sweep of two methods and two seeds, tracked, with its report; and what it printed."""
    output = tmp_path_factory.mktemp("swept") / "out"
    shutil.copytree(warmed_up / "policies", output / "policies")
    return output, lab(*SWEEP, "-o", str(output), cwd=output)


def test_sweep_finishes_all_runs_and_names_report_and_mlflow(swept: tuple[Path, Any]) -> None:
    output, done = swept
    assert done.returncode == 0, done.stdout + done.stderr
    folders = [RunFolder(path.parent) for path in output.glob("runs/*/run.json")]
    assert len(folders) == 4
    assert {folder.status for folder in folders} == {"FINISHED"}
    (page,) = output.glob("reports/*/index.html")
    assert str(page) in done.stdout.replace("\n", "")
    assert "mlflow ui" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_store_holds_one_parent_with_a_nested_run_for_each_configuration(swept: tuple[Path, Any]) -> None:
    output, _ = swept
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    experiment = client.get_experiment_by_name("cppo-lab")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(nested) == 4
    assert {(run.data.params["algo.name"], run.data.params["seed"]) for run in nested} == {
        (algo, seed) for algo in ("grpo", "cppo") for seed in ("0", "1")
    }
    for run in nested:
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "eval/heldout/accuracy")
        assert {metric.step for metric in history} == {0, 2, 3}


def test_same_sweep_again_does_nothing_and_rewrites_nothing(swept: tuple[Path, Any]) -> None:
    output, _ = swept
    before = files_with_times(output, ("runs/**/*", "reports/**/*", "policies/**/*", "sweeps/**/*"))
    started = time.monotonic()
    done = lab(*SWEEP, "-o", str(output), cwd=output)
    assert time.monotonic() - started < 30
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to do" in done.stdout
    assert files_with_times(output, ("runs/**/*", "reports/**/*", "policies/**/*", "sweeps/**/*")) == before


def test_another_sweep_shares_the_runs_it_has_in_common(swept: tuple[Path, Any]) -> None:
    output, _ = swept
    before = files_with_times(output, ("runs/*/metrics.jsonl", "runs/*/run.json"))
    arguments = ["sweep", "algo=cppo", "seed=1,2", *SETTINGS, "--no-report", "-o", str(output)]
    plan = lab("plan", *arguments[1:-3], "-o", str(output), "--json", cwd=output)
    states = [run["state"] for run in json.loads(plan.stdout)["runs"]]
    assert states == ["FINISHED", "PENDING"]
    done = lab(*arguments, cwd=output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 run to do, 1 finished" in done.stdout
    after = files_with_times(output, ("runs/*/metrics.jsonl", "runs/*/run.json"))
    assert before.items() <= after.items()
    assert len(list(output.glob("runs/*/run.json"))) == 5


def test_sweep_of_finished_runs_alone_is_shown_in_the_store_too(swept: tuple[Path, Any]) -> None:
    output, _ = swept
    arguments = ["sweep", "algo=cppo", "seed=0,1", *SETTINGS, "-o", str(output)]
    before = files_with_times(output, ("runs/*/metrics.jsonl", "runs/*/run.json"))
    done = lab(*arguments, cwd=output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to do" in done.stdout
    assert files_with_times(output, ("runs/*/metrics.jsonl", "runs/*/run.json")) == before
    manifests = [json.loads(path.read_text(encoding="utf-8")) for path in output.glob("sweeps/*/sweep.json")]
    (mine,) = (m for m in manifests if m["axes"] == {"seed": ["0", "1"]})
    client = MlflowClient(mine["tracking_uri"])
    parent = client.get_run(mine["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    nested = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    assert {run.data.params["seed"] for run in nested} == {"0", "1"}


def test_sweep_in_a_file_is_named_by_it_wherever_its_output_goes(warmed_up: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    overrides = "".join(f"  - {override}\n" for override in (*TINY, "trainer.steps=1"))
    file.write_text(f"title: Mine\noverrides:\n{overrides}axes:\n  seed: [0, 1]\n", encoding="utf-8")
    output = tmp_path / "out"
    shutil.copytree(warmed_up / "policies", output / "policies")
    done = lab("sweep", str(file), "--no-report", "-o", str(output), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.parent.name for path in output.glob("sweeps/*/sweep.json")] == ["mine"]


def test_runs_of_a_sweep_equal_the_same_runs_alone(swept: tuple[Path, Any], tmp_path: Path) -> None:
    output, _ = swept
    alone = tmp_path / "alone"
    shutil.copytree(output / "policies", alone / "policies")
    done = lab("train", "algo=grpo", "seed=1", *TINY, "-o", str(alone), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = alone.glob("runs/*/metrics.jsonl")
    assert path.read_bytes() == (output / "runs" / path.parent.name / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("uri", ["corrupt", "http://127.0.0.1:9"])
def test_store_that_cannot_be_used_ends_the_sweep_before_any_run(
    uri: str, output: Path, tmp_path: Path
) -> None:
    if uri == "corrupt":
        (output / "mlflow.db").write_bytes(b"no database " * 200)
        extra = []
    else:
        extra = [f"tracking.uri={uri}"]
    done = lab(
        *SWEEP, *extra, "-o", str(output), cwd=tmp_path, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", timeout=120
    )
    assert done.returncode == 2, done.stdout + done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(sentences) == 1, done.stderr
    assert "tracking=none" in sentences[0]
    assert not (output / "runs").exists()


def test_failed_starting_policy_fails_its_runs_with_the_reason(tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / "policies").mkdir(parents=True)
    from cppo_lab.training.policy_cache import cache_folder

    config = compose_run([*TINY, f"paths.output='{output}'"])
    # A file where the cache folder must come to stand.
    cache_folder(config).write_text("in the way", encoding="utf-8")
    done = lab("sweep", "seed=0,1", *TINY, "--no-report", "-o", str(output), cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("its starting policy failed") >= 2
    assert "Traceback" not in done.stdout + done.stderr


def test_hydra_multirun_does_the_same_runs(swept: tuple[Path, Any], tmp_path: Path) -> None:
    import subprocess
    import sys

    from tiny_runs import clean_environment

    output, _ = swept
    mine = tmp_path / "out"
    shutil.copytree(output / "policies", mine / "policies")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cppo_lab.hydra_app", "--multirun", "algo=cppo", "seed=0,1", *TINY),
            f"paths.output={mine}",
        ],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = sorted(mine.glob("runs/*/metrics.jsonl"))
    assert len(metrics) == 2
    for path in metrics:
        assert path.read_bytes() == (output / "runs" / path.parent.name / "metrics.jsonl").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"], (
        "nothing is written beside the output folder"
    )


def test_hydras_joblib_launcher_runs_a_sweep(output: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the joblib launcher is not installed")
    arguments = [
        *("sweep", "seed=0,1", *SETTINGS, "trainer.steps=1"),
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "-o", str(output)),
    ]
    done = lab(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = [RunFolder(path.parent) for path in output.glob("runs/*/run.json")]
    assert [folder.status for folder in folders] == ["FINISHED", "FINISHED"]
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    experiment = client.get_experiment_by_name("cppo-lab")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sum("mlflow.parentRunId" in run.data.tags for run in runs) == 2
    again = lab(*arguments, cwd=tmp_path)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout

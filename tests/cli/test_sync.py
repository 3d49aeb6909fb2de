"""`cppo-lab sync`: MLflow compared with the run folders, and mended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from tiny_runs import written_run

from cppo_lab.config.compose import compose_run
from cppo_lab.sweeps.adhoc import Naming, adhoc_sweep
from cppo_lab.sweeps.sweep import plan_sweep
from cppo_lab.tracking.mlflow_store import Store
from cppo_lab.tracking.mlflow_sync import RunMirror, SweepMirror
from cppo_lab.tracking.run_folder import RunFolder, run_folder
from cppo_lab.tracking.store_address import default_uri

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    """An output folder with a sweep of two runs and one run alone, all of them tracked."""
    root = tmp_path / "out"
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    sweep = plan_sweep(
        adhoc_sweep(["seed=1,2"], Naming("ours", None, None)), ["seed=1,2", f"paths.output='{root}'"]
    )
    for run in sweep.runs:
        written_run(run.config)
    SweepMirror(sweep, sweep.runs[0].config.tracking).close()
    alone = compose_run([f"paths.output='{root}'", "seed=3"])
    RunMirror(alone, written_run(alone)).close()
    return root


def client_of(root: Path) -> tuple[MlflowClient, list[Any]]:
    client = MlflowClient(default_uri(root))
    experiment = client.get_experiment_by_name("cppo-lab")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def some_run(root: Path) -> tuple[RunFolder, Any, MlflowClient]:
    """A run of the sweep: its folder and its record."""
    client, found = client_of(root)
    record = next(run for run in found if "mlflow.parentRunId" in run.data.tags)
    (folder,) = root.glob(f"runs/*-{record.data.tags['cppo_lab.run_id']}")
    return RunFolder(folder), record, client


def test_what_agrees_is_said_to_agree_and_left_alone(root: Path, invoke: Invoke) -> None:
    before = {run.info.run_id: dict(run.data.tags) for run in client_of(root)[1]}
    for check in (["--check"], []):
        code, out, _ = invoke("sync", "--all", *check, "-o", str(root))
        assert code == 0, out
        assert "4 records compared, 0" in out
    assert {run.info.run_id: dict(run.data.tags) for run in client_of(root)[1]} == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda client, run: client.update_run(run, status="RUNNING"), "status RUNNING, not FINISHED"),
        (lambda client, run: client.delete_run(run), "is missing"),
        (
            lambda client, run: client.log_metric(run, "eval/heldout/accuracy", 0.3, step=1),
            "has 2 values at step 1",
        ),
        (
            lambda client, run: client.log_metric(run, "eval/heldout/accuracy", 0.3, step=9),
            "has a value at step 9",
        ),
        (lambda client, run: client.delete_tag(run, "cppo_lab.method"), "tags cppo_lab.method"),
        (lambda client, run: client.log_text(run, "{}", "run.json"), "files run.json"),
    ],
)
def test_check_tells_what_differs_and_sync_mends_it(
    spoil: Callable[[MlflowClient, str], Any], said: str, root: Path, invoke: Invoke
) -> None:
    folder, record, client = some_run(root)
    spoil(client, record.info.run_id)
    code, out, _ = invoke("sync", "ours", "--check", "-o", str(root))
    assert code == 4
    assert f"{folder.path.name}: " in out
    assert said in out
    assert "3 records compared, 1 differ." in out
    code, out, _ = invoke("sync", "ours", "-o", str(root))
    assert code == 0
    assert said in out
    assert "1 mended." in out
    assert invoke("sync", "--all", "--check", "-o", str(root))[0] == 0


def test_sweep_that_nobody_runs_is_not_running(root: Path, invoke: Invoke) -> None:
    client, found = client_of(root)
    parent = next(run for run in found if run.data.tags["cppo_lab.kind"] == "sweep")
    client.update_run(parent.info.run_id, status="RUNNING")
    code, out, _ = invoke("sync", "ours", "--check", "-o", str(root))
    assert code == 4
    assert "ours: status RUNNING, not FINISHED" in out
    assert invoke("sync", "ours", "-o", str(root))[0] == 0
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"


def test_another_store_is_filled_from_the_folders(root: Path, tmp_path: Path, invoke: Invoke) -> None:
    other = tmp_path / "other"
    uri = f"sqlite:///{other}/store.db"
    Store(uri, "cppo-lab", other)
    told = ["sync", "--all", "--store", uri, "-o", str(root)]
    code, out, _ = invoke(*told, "--check")
    assert code == 4
    assert out.count("is missing") == 4
    assert invoke(*told)[0] == 0
    assert invoke(*told, "--check")[0] == 0
    experiment = MlflowClient(uri).get_experiment_by_name("cppo-lab")
    assert experiment is not None
    assert len(MlflowClient(uri).search_runs([experiment.experiment_id])) == 4
    assert invoke("sync", "--all", "--check", "-o", str(root))[0] == 0, "the first store is as it was"


def test_one_broken_run_keeps_no_other_from_being_compared(root: Path, invoke: Invoke) -> None:
    folder, record, client = some_run(root)
    others = [run for run in client_of(root)[1] if run.info.run_id != record.info.run_id]
    for other in others:
        client.update_run(other.info.run_id, status="RUNNING")
    (folder.path / "run.json").write_text("{")
    code, out, err = invoke("sync", "--all", "-o", str(root))
    assert code == 4
    assert f"{folder.path.name}: cannot be compared" in out
    assert "1 could not be compared" in out
    assert "Traceback" not in out + err
    statuses = {run.info.run_id: run.info.status for run in client_of(root)[1]}
    runs = [other.info.run_id for other in others if other.data.tags["cppo_lab.kind"] == "run"]
    assert {statuses[each] for each in runs} == {"FINISHED"}


@pytest.mark.parametrize("arguments", [[], ["ours", "--all"]])
def test_names_or_everything_not_both(arguments: list[str], root: Path, invoke: Invoke) -> None:
    code, _, err = invoke("sync", *arguments, "-o", str(root))
    assert code == 2
    assert "give the names of sweeps, runs or evaluations, or --all" in err


def test_unknown_name_is_refused(root: Path, invoke: Invoke) -> None:
    code, _, err = invoke("sync", "theirs", "-o", str(root))
    assert code == 2
    assert "SWEEP|RUN|EVALUATION theirs: no such run" in err


def test_json_lists_the_differences(root: Path, invoke: Invoke) -> None:
    folder, record, client = some_run(root)
    client.update_run(record.info.run_id, status="RUNNING")
    code, out, _ = invoke("sync", "--all", "--check", "--json", "-o", str(root))
    assert code == 4
    assert json.loads(out) == [{"name": folder.path.name, "differences": ["status RUNNING, not FINISHED"]}]


@pytest.mark.parametrize(
    "broken",
    ["run.json", "config.yaml", "sweep.json", "mlflow.json of an evaluation", "a store that is gone"],
)
def test_one_record_that_cannot_be_compared_keeps_no_other_from_it(
    broken: str, root: Path, invoke: Invoke
) -> None:
    alone = run_folder(compose_run([f"paths.output='{root}'", "seed=3"])).path
    if broken.startswith("mlflow.json"):
        (root / "evals" / "theirs").mkdir(parents=True)
        for name in ("results.json", "mlflow.json"):
            (root / "evals" / "theirs" / name).write_text("{", encoding="utf-8")
    elif broken.startswith("a store"):
        config = yaml.safe_load((alone / "config.yaml").read_text(encoding="utf-8"))
        config["tracking"]["uri"] = f"sqlite:///{root}/gone.db"
        (alone / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    else:
        path = root / "sweeps" / "ours" / "sweep.json" if broken == "sweep.json" else alone / broken
        path.write_text("{", encoding="utf-8")
    code, out, err = invoke("sync", "--all", "--check", "-o", str(root))
    assert code == 4, out + err
    assert out.count("cannot be compared") == 1, out
    compared = int(out.splitlines()[-1].split()[0])
    assert compared >= 4, "the sweep or its runs, and the run alone"
    assert not (root / "gone.db").exists()


def test_a_file_of_the_same_size_is_told_and_sent(root: Path, invoke: Invoke) -> None:
    folder, record, client = some_run(root)
    path = folder.path / "metrics.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(": 1,", ":1, ", 1), encoding="utf-8")
    assert path.stat().st_size == len(text)
    assert invoke("sync", "--all", "--check", "-o", str(root))[0] == 4
    assert invoke("sync", "--all", "-o", str(root))[1].endswith("4 records compared, 1 mended.\n")
    assert invoke("sync", "--all", "--check", "-o", str(root))[0] == 0
    kept = Path(client.download_artifacts(record.info.run_id, "metrics.jsonl"))
    assert kept.read_bytes() == path.read_bytes()


def test_a_record_is_looked_for_where_it_was_sent(
    root: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/other.db")
    assert invoke("sync", "--all", "--check", "-o", str(root))[0] == 0
    assert not (root / "other.db").exists()

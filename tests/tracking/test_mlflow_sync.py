"""MLflow as a window: what a run folder says, once, under its parent; and stores that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tiny_runs import files_with_times, lab, written_run

from cppo_lab.analysis.load.mlflow_runs import Selection, load_experiment
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.config.compose import compose_run
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.sweeps.adhoc import adhoc_sweep
from cppo_lab.sweeps.sweep import plan_sweep
from cppo_lab.tracking import sqlite_store
from cppo_lab.tracking.mlflow_names import STARTING_POLICY_TAG
from cppo_lab.tracking.mlflow_store import Store
from cppo_lab.tracking.mlflow_sync import RunMirror, SweepMirror
from cppo_lab.tracking.run_folder import RunFolder, run_folder
from cppo_lab.tracking.store_address import store_name, tracking_uri


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder, so one store, for all tests here: making a store takes seconds."""
    return tmp_path_factory.mktemp("tracked")


def tracked(client: MlflowClient, tags: dict[str, str] | None = None) -> list[Any]:
    experiment = client.get_experiment_by_name("cppo-lab")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    return [r for r in found if all(r.data.tags.get(k) == v for k, v in (tags or {}).items())]


def test_run_arrives_with_params_metrics_by_step_versions_and_artifacts(root: Path) -> None:
    config = compose_run([f"paths.output='{root}'", "seed=11"])
    folder = written_run(config)
    RunMirror(config, folder).close()
    client = MlflowClient(tracking_uri(None, root))
    (found,) = tracked(client, {"cppo_lab.run_id": folder.info["run_id"]})
    assert found.info.status == "FINISHED"
    assert found.data.params["trainer.lr"] == str(config.trainer.lr)
    assert found.data.params["algo.trust_region.budget.kind"] == config.algo.trust_region.budget.kind
    assert found.data.params["seed"] == "11"
    history = client.get_metric_history(found.info.run_id, "eval/heldout/accuracy")
    assert sorted((m.step, m.value) for m in history) == [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert client.get_metric_history(found.info.run_id, "train/undefined") == []
    assert found.data.tags["mlflow.source.git.commit"] == "c" * 40
    assert found.data.tags["version.torch"] == "2.13.0"
    names = {artifact.path for artifact in client.list_artifacts(found.info.run_id)}
    assert {"config.yaml", "run.json", "metrics.jsonl", "samples"} <= names
    # Step 0's file says nothing of tokens, whatever its text looks like; the last one is sent in any case.
    kept = {artifact.path for artifact in client.list_artifacts(found.info.run_id, "samples")}
    assert kept == {"samples/step_000001.jsonl", "samples/step_000002.jsonl"}


def test_mirroring_twice_adds_nothing(root: Path) -> None:
    config = compose_run([f"paths.output='{root}'", "seed=12"])
    folder = written_run(config)
    RunMirror(config, folder).close()
    client = MlflowClient(tracking_uri(None, root))
    runs = len(tracked(client))
    RunMirror(config, folder).close()
    mirror = RunMirror(config, folder)
    mirror.send()
    mirror.send()
    assert len(tracked(client)) == runs
    (found,) = tracked(client, {"cppo_lab.run_id": folder.info["run_id"]})
    assert len(client.get_metric_history(found.info.run_id, "eval/heldout/accuracy")) == 3


def test_only_new_rows_are_sent_while_a_run_goes_on(root: Path) -> None:
    config = compose_run([f"paths.output='{root}'", "seed=13"])
    folder = written_run(config, status="RUNNING", steps=1)
    mirror = RunMirror(config, folder)
    mirror.send()
    client = MlflowClient(tracking_uri(None, root))
    (found,) = tracked(client, {"cppo_lab.run_id": folder.info["run_id"]})
    assert found.info.status == "RUNNING"
    folder.append("metrics.jsonl", {"step": 1, "eval/heldout/accuracy": 0.9})
    mirror.send()
    history = client.get_metric_history(found.info.run_id, "eval/heldout/accuracy")
    assert sorted((m.step, m.value) for m in history) == [(0, 0.0), (1, 0.9)]


def test_failed_run_says_so_with_its_reason_and_may_go_on(root: Path) -> None:
    config = compose_run([f"paths.output='{root}'", "seed=14"])
    folder = written_run(
        config, status="FAILED", reason="diverged at step 2, update 7: loss nan", diverged=True
    )
    RunMirror(config, folder).close()
    client = MlflowClient(tracking_uri(None, root))
    (found,) = tracked(client, {"cppo_lab.run_id": folder.info["run_id"]})
    assert found.info.status == "FAILED"
    assert "diverged at step 2" in found.data.tags["cppo_lab.reason"]
    assert found.data.tags["cppo_lab.diverged"] == "True"
    folder.update_info(status="RUNNING", reason=None, diverged=False)
    RunMirror(config, folder).send()
    assert client.get_run(found.info.run_id).info.status == "RUNNING"
    folder.update_info(status="FAILED", reason="KeyError: 'divergence_mean'")
    RunMirror(config, folder).close()
    assert client.get_run(found.info.run_id).data.tags["cppo_lab.diverged"] == "False"


def test_sweep_is_one_parent_with_its_runs_nested_and_is_found_again(root: Path) -> None:
    sweep = plan_sweep(adhoc_sweep(["seed=21,22"]), ["seed=21,22", f"paths.output='{root}'"])
    for run in sweep.runs:
        written_run(run.config)
    settings = sweep.runs[0].config.tracking
    first = SweepMirror(sweep, settings)
    first.close()
    again = SweepMirror(sweep, settings)
    client = MlflowClient(tracking_uri(None, root))
    assert again.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    sweep.runs[0].folder.update_info(status="FAILED", reason="diverged")
    again.close()
    assert client.get_run(first.run_id).info.status == "FAILED"
    nested = tracked(client, {"mlflow.parentRunId": first.run_id})
    assert {run.data.params["seed"] for run in nested} == {"21", "22"}
    assert len(nested) == 2


def test_sweep_says_which_runs_are_to_come_before_any_has_begun(root: Path) -> None:
    sweep = plan_sweep(adhoc_sweep(["seed=23,24"]), ["seed=23,24", f"paths.output='{root}'"])
    mirror = SweepMirror(sweep, sweep.runs[0].config.tracking)
    client = mirror.store.client
    path = client.download_artifacts(mirror.run_id, "sweep.json")
    manifest = json.loads(Path(path).read_text(encoding="utf-8"))
    assert [entry["status"] for entry in manifest["runs"]] == [None, None]
    written_run(sweep.runs[0].config)
    mirror.close()
    path = client.download_artifacts(mirror.run_id, "sweep.json")
    manifest = json.loads(Path(path).read_text(encoding="utf-8"))
    assert [entry["status"] for entry in manifest["runs"]] == ["FINISHED", None]


def test_starting_policy_arrives_as_soon_as_it_is_known(root: Path) -> None:
    config = compose_run([f"paths.output='{root}'", "seed=15"])
    folder = written_run(config, status="RUNNING", steps=0)
    mirror = RunMirror(config, folder)
    mirror.send()
    client = MlflowClient(tracking_uri(None, root))
    (found,) = tracked(client, {"cppo_lab.run_id": folder.info["run_id"]})
    assert STARTING_POLICY_TAG not in found.data.tags
    folder.update_info(starting_policy={"recipe": "0123456789ab", "seed": 0, "accuracy": 0.3})
    mirror.send()
    tags = client.get_run(found.info.run_id).data.tags
    assert tags[STARTING_POLICY_TAG] == "0123456789ab"


def test_report_reads_back_what_was_sent(root: Path, tmp_path: Path) -> None:
    sweep = plan_sweep(adhoc_sweep(["seed=25,26"]), ["seed=25,26", f"paths.output='{root}'"])
    for run in sweep.runs:
        written_run(run.config, starting_policy={"recipe": "0123456789ab", "seed": 0, "accuracy": 0.3})
    SweepMirror(sweep, sweep.runs[0].config.tracking).close()
    here = load_study(root, sweep.name)
    there = load_experiment(Selection(tracking_uri(None, root), "cppo-lab", (sweep.name,)), tmp_path)
    assert there.metrics.equals(here.metrics)
    columns = [column for column in here.runs.columns if column != "folder"]
    assert there.runs[columns].equals(here.runs[columns])
    assert there.grouping == here.grouping
    assert all(Path(folder).is_relative_to(tmp_path) for folder in there.runs["folder"])


def test_store_that_goes_away_costs_a_warning_and_no_result(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = plan_sweep(adhoc_sweep(["seed=31"]), ["seed=31", f"paths.output='{root}'"])
    written_run(sweep.runs[0].config)
    mirror = SweepMirror(sweep, sweep.runs[0].config.tracking)

    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionError("the store went away")

    for name in ("create_run", "log_batch", "set_terminated", "log_artifact", "get_run"):
        monkeypatch.setattr(mirror.store.client, name, gone)
    mirror.send()
    mirror.close()
    printed = capsys.readouterr().err
    assert printed.count("the store went away") == 1


def test_store_emptied_halfway_costs_a_warning_and_no_traceback(
    tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copy(empty_store, tmp_path / "mlflow.db")
    config = compose_run([f"paths.output='{tmp_path}'", "seed=34"])
    mirror = RunMirror(config, written_run(config))
    with sqlite3.connect(store) as connection:
        connection.execute("DROP TABLE runs")
    mirror.close()
    printed = capsys.readouterr().err
    assert "no such table: runs; trying again" in printed
    assert "Traceback" not in printed
    assert len(mirror.unsent) == 1


def test_store_that_fails_halfway_gets_no_second_run_for_a_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose_run([f"paths.output='{root}'", "seed=32"])
    folder = written_run(config)
    mirror = RunMirror(config, folder)

    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionError("the store went away")

    with monkeypatch.context() as broken:
        broken.setattr(mirror.store.client, "log_batch", gone)
        mirror.send()
        mirror.send()
    mirror.close()
    (found,) = tracked(mirror.store.client, {"cppo_lab.run_id": folder.info["run_id"]})
    assert found.info.status == "FINISHED"
    assert found.data.params["seed"] == "32"


def test_slow_store_keeps_nobody_waiting_and_gets_everything_in_the_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose_run([f"paths.output='{root}'", "seed=51", "tracking.every_s=0.001"])
    folder = written_run(config, status="RUNNING", steps=1)
    mirror = RunMirror(config, folder)
    answering, asked = threading.Event(), threading.Event()
    senders: list[str] = []
    send = mirror.store.runs.update

    def slow(*arguments: Any, **options: Any) -> list[str]:
        senders.append(threading.current_thread().name)
        asked.set()
        assert answering.wait(60)
        return send(*arguments, **options)

    monkeypatch.setattr(mirror.store.runs, "update", slow)
    for _ in range(5):
        mirror.poll()
        assert asked.wait(60)
    assert senders == ["mlflow"], "one at a time, and not in the thread that gives the workers their jobs"
    folder.append("metrics.jsonl", {"step": 1, "eval/heldout/accuracy": 0.9})
    folder.update_info(status="FINISHED")
    threading.Timer(0.2, answering.set).start()
    mirror.close()
    client = MlflowClient(tracking_uri(None, root))
    (found,) = tracked(client, {"cppo_lab.run_id": folder.info["run_id"]})
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "eval/heldout/accuracy")
    assert sorted((m.step, m.value) for m in history) == [(0, 0.0), (1, 0.9)]


def test_run_that_ended_is_not_read_again_unless_it_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = plan_sweep(adhoc_sweep(["seed=61,62"]), ["seed=61,62", f"paths.output='{root}'"])
    written_run(sweep.runs[0].config)
    failed = written_run(sweep.runs[1].config, status="FAILED", reason="diverged")
    mirror = SweepMirror(sweep, sweep.runs[0].config.tracking)
    mirror.send()
    sent: list[Path] = []
    send = mirror.store.runs.update

    def counting(folder: RunFolder, *arguments: Any, **options: Any) -> list[str]:
        sent.append(folder.path)
        return send(folder, *arguments, **options)

    monkeypatch.setattr(mirror.store.runs, "update", counting)
    for name in ("get_run", "search_runs", "log_batch"):
        monkeypatch.setattr(mirror.store.client, name, lambda *_, **__: pytest.fail("asked again"))
    mirror.send()
    mirror.send()
    assert sent == []
    monkeypatch.undo()
    failed.update_info(status="RUNNING", reason=None)
    mirror.send()
    failed.update_info(status="FINISHED")
    mirror.close()
    (found,) = tracked(mirror.store.client, {"cppo_lab.run_id": failed.info["run_id"]})
    assert found.info.status == "FINISHED"


def test_two_sweeps_over_the_same_runs_both_have_them_nested(root: Path) -> None:
    parents = []
    for axes in ("seed=71,72", "seed=72,71,73"):
        sweep = plan_sweep(adhoc_sweep([axes]), [axes, f"paths.output='{root}'"])
        for run in sweep.runs:
            if run.folder.status is None:
                written_run(run.config)
        for _ in range(2):
            mirror = SweepMirror(sweep, sweep.runs[0].config.tracking)
            mirror.close()
        parents.append(mirror.run_id)
    client = mirror.store.client
    seeds = [
        sorted(run.data.params["seed"] for run in tracked(client, {"mlflow.parentRunId": parent}))
        for parent in parents
    ]
    assert seeds == [["71", "72"], ["71", "72", "73"]]


def test_output_folder_that_moves_keeps_its_runs_and_parents(root: Path, tmp_path: Path) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    first.mkdir()
    # A store of its own, without the seconds that making one takes.
    RunMirror(compose_run([f"paths.output='{root}'"]), RunFolder(root / "runs" / "none"))
    shutil.copy(root / "mlflow.db", first / "mlflow.db")
    overrides = ["seed=81"]
    sweep = plan_sweep(adhoc_sweep(overrides), [*overrides, f"paths.output='{first}'"])
    written_run(sweep.runs[0].config)
    before = SweepMirror(sweep, sweep.runs[0].config.tracking)
    before.close()
    count = len(tracked(before.store.client))
    first.rename(moved)
    sweep = plan_sweep(adhoc_sweep(overrides), [*overrides, f"paths.output='{moved}'"])
    after = SweepMirror(sweep, sweep.runs[0].config.tracking)
    after.close()
    assert after.run_id == before.run_id
    assert len(tracked(after.store.client)) == count
    manifest = json.loads((sweep.folder / "sweep.json").read_text(encoding="utf-8"))
    assert manifest["tracking_uri"] == f"sqlite:///{moved}/mlflow.db", (
        "readers get an address that they can open"
    )


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_artifacts_follow_an_output_folder(
    move: Callable[[Path, Path], Any], empty_store: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    shutil.copy(empty_store, first / "mlflow.db")
    config = compose_run([f"paths.output='{first}'", "seed=42"])
    RunMirror(config, written_run(config)).close()
    move(first, second)
    content = files_with_times(first) if first.exists() else None
    # Each in a process of its own, since MLflow's client remembers where a run's artifacts are.
    for only in ([], ["--check"]):
        found = lab("sync", "--all", *only, "-o", str(second), cwd=tmp_path)
        assert (found.returncode, found.stdout) == (
            0,
            f"1 record compared, 0 {'differ' if only else 'mended'}.\n",
        )
    (kept,) = second.glob("mlartifacts/*/artifacts/metrics.jsonl")
    kept.unlink()
    mended = lab("sync", "--all", "-o", str(second), cwd=tmp_path)
    assert "files metrics.jsonl" in mended.stdout
    assert kept.exists()
    assert content == (files_with_times(first) if first.exists() else None), "the original is left alone"


def test_default_store_has_the_same_name_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in (f"sqlite:///{tmp_path}/o/mlflow.db", "sqlite:///o/mlflow.db", "sqlite:///o/../o/mlflow.db"):
        assert store_name(uri, Path("o")) == store_name(uri, tmp_path / "o") == "default"
    for uri in (f"sqlite:///{tmp_path}/mlflow.db", "http://somewhere:5000"):
        assert store_name(uri, tmp_path / "o") == uri


def test_environment_names_the_store_and_the_configuration_beats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert tracking_uri(None, tmp_path) == "http://somewhere:5000"
    assert tracking_uri("sqlite:///x.db", tmp_path) == "sqlite:///x.db"


def refusal(config: RunConfig, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        RunMirror(config, run_folder(config))
    sentence = str(caught.value)
    assert "\n" not in sentence
    for part in ("tracking.uri=", *parts):
        assert part in sentence, sentence


def test_corrupt_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database " * 100)
    before = files_with_times(tmp_path)
    refusal(compose_run([f"paths.output='{tmp_path}'"]), "mlflow.db", "tracking=none")
    after = files_with_times(tmp_path)
    assert after["mlflow.db"] == before["mlflow.db"]
    assert after.keys() == before.keys()


def test_store_on_a_full_disk_is_refused_for_that(small_disk: Path) -> None:
    uri = tracking_uri(None, small_disk)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(free - (100 << 10)))
    with pytest.raises(UserError, match=r"there is no room left on its disk, of which 0\.\d MiB are free"):
        Store(uri, "cppo-lab", small_disk)


def test_locked_store_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "_LOCK_PATIENCE_S", 0.2)
    config = compose_run([f"paths.output='{root}'", "seed=41"])
    RunMirror(config, run_folder(config))
    with sqlite3.connect(root / "mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        try:
            refusal(config, "locked")
        finally:
            other.rollback()


def test_deleted_experiment_is_refused_with_the_remedy(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/ml.db"
    client = MlflowClient(uri)
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    named = [f"paths.output='{tmp_path}'", f"tracking.uri='{uri}'", "tracking.experiment=gone"]
    with pytest.raises(UserError) as caught:
        RunMirror(compose_run(named), run_folder(compose_run(named)))
    assert str(caught.value) == (
        f"tracking.experiment=gone: was deleted from the MLflow store {uri}; give another name, or restore it: "
        f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore -x {number}."
    )
    client.restore_experiment(number)
    RunMirror(compose_run(named), run_folder(compose_run(named)))


@pytest.fixture
def dead_server() -> Any:
    """The address of a server that answers every request by hanging up."""
    listener = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()

    def serve() -> None:
        while not closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    closing.set()
    listener.close()


def test_unreachable_server_is_refused(
    tmp_path: Path, dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    refusal(compose_run([f"paths.output='{tmp_path}'", f"tracking.uri={dead_server}"]), dead_server)
    assert list(tmp_path.iterdir()) == [], "not even a lock"
    assert not os.environ.get("MLFLOW_RUN_ID")

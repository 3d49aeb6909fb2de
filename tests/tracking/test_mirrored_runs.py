"""MLflow says what the run folders say, whatever was sent before, by whom, and however it ended."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from tiny_runs import written_run

from cppo_lab.config.compose import compose_run
from cppo_lab.sweeps.adhoc import adhoc_sweep
from cppo_lab.sweeps.sweep import Sweep, plan_sweep
from cppo_lab.tracking.mlflow_sync import RunMirror, SweepMirror
from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.tracking.store_address import default_uri

ACCURACY = "eval/heldout/accuracy"


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def active(root: Path, **tags: str) -> list[Any]:
    client = MlflowClient(default_uri(root))
    experiment = client.get_experiment_by_name("cppo-lab")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    return [r for r in found if all(r.data.tags.get(f"cppo_lab.{k}") == v for k, v in tags.items())]


def history(root: Path, run_id: str, key: str = ACCURACY) -> list[tuple[int, float]]:
    found = MlflowClient(default_uri(root)).get_metric_history(run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def a_run(root: Path, status: str = "FINISHED", steps: int = 3, **info: Any) -> tuple[Any, RunFolder]:
    config = compose_run([f"paths.output='{root}'"])
    return config, written_run(config, status=status, steps=steps, **info)


def only(root: Path) -> Any:
    (found,) = active(root, kind="run")
    return found


EXACT = [(0, 0.0), (1, 0.25), (2, 0.5)]


def test_values_that_were_sent_twice_are_there_once_afterwards(root: Path) -> None:
    config, folder = a_run(root)
    RunMirror(config, folder).close()
    client, first = MlflowClient(default_uri(root)), only(root)
    client.log_batch(first.info.run_id, metrics=[Metric(ACCURACY, 0.25, 123456, 1)])
    store = RunMirror(config, folder).store
    assert store.runs.check(folder, None) == [f"{ACCURACY} has 2 values at step 1"]
    assert store.runs.update(folder, None, "again", thorough=True) == [f"{ACCURACY} has 2 values at step 1"]
    assert history(root, only(root).info.run_id) == EXACT
    assert only(root).info.run_id != first.info.run_id
    assert store.runs.check(folder, None) == []


def test_steps_that_the_folder_lacks_are_gone_afterwards(root: Path) -> None:
    config, folder = a_run(root, steps=5)
    RunMirror(config, folder).close()
    folder.rewind(2)
    RunMirror(config, folder).close()
    assert history(root, only(root).info.run_id) == EXACT


def test_rows_made_again_by_a_resumed_run_are_not_sent_again(root: Path) -> None:
    config, folder = a_run(root, status="RUNNING")
    RunMirror(config, folder).send()
    before = only(root).info.run_id
    folder.rewind(0)
    mirror = RunMirror(config, folder)
    mirror.send()
    for step in (1, 2):
        folder.append("timings.jsonl", {"step": step, "logged_at": 1e9 + step})
        folder.append("metrics.jsonl", {"step": step, ACCURACY: 0.25 * step})
    mirror.send()
    folder.update_info(status="FINISHED")
    mirror.close()
    assert only(root).info.run_id == before
    assert history(root, before) == EXACT


def test_every_value_has_the_time_of_its_row(root: Path) -> None:
    config, folder = a_run(root, started_at="2026-01-01T00:00:00+00:00", ended_at="2026-01-01T01:00:00+00:00")
    for step in (1, 2):
        folder.append("timings.jsonl", {"step": step, "train_s": 1.0, "logged_at": 1_767_225_600 + 60 * step})
    RunMirror(config, folder).close()
    run = only(root)
    found = MlflowClient(default_uri(root)).get_metric_history(run.info.run_id, ACCURACY)
    assert sorted(metric.timestamp for metric in found) == [1_767_225_600_000 + 60_000 * k for k in range(3)]
    assert run.info.start_time == 1_767_225_600_000
    assert run.info.end_time - run.info.start_time == 3_600_000


def test_configuration_that_changed_after_an_early_kill_blocks_nothing(root: Path) -> None:
    config, folder = a_run(root, status="RUNNING", steps=1)
    RunMirror(config, folder).send()
    changed = config.model_dump(mode="python")
    changed["tracking"]["every_s"] = 9.5
    folder.create(changed)
    for step in (1, 2):
        folder.append("metrics.jsonl", {"step": step, ACCURACY: 0.25 * step})
    folder.update_info(status="FINISHED")
    RunMirror(config, folder).close()
    run = only(root)
    assert run.data.params["tracking.every_s"] == "9.5"
    assert history(root, run.info.run_id) == EXACT


def test_record_that_was_deleted_is_made_again(root: Path) -> None:
    config, folder = a_run(root)
    RunMirror(config, folder).close()
    MlflowClient(default_uri(root)).delete_run(only(root).info.run_id)
    assert active(root, kind="run") == []
    RunMirror(config, folder).close()
    assert history(root, only(root).info.run_id) == EXACT


def test_store_that_fails_for_a_moment_is_not_taken_for_one_without_the_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = a_run(root)
    RunMirror(config, folder).close()
    before = only(root).info.run_id
    folder.update_info(status="FAILED", reason="diverged")
    mirror = RunMirror(config, folder)

    def gone(*_: Any, **__: Any) -> None:
        raise MlflowException("the server is restarting")

    with monkeypatch.context() as broken:
        for name in ("search_runs", "get_run"):
            broken.setattr(mirror.store.client, name, gone)
        mirror.close()
    assert mirror.unsent == [folder.path.name]
    mirror.close()
    assert mirror.unsent == []
    assert only(root).info.run_id == before
    assert only(root).info.status == "FAILED"


def test_run_whose_process_died_is_not_running(root: Path) -> None:
    config, folder = a_run(root, status="RUNNING")
    mirror = RunMirror(config, folder)
    mirror.send()
    assert only(root).info.status == "RUNNING", "the caller trains it"
    mirror.close()
    assert only(root).info.status == "KILLED"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"default": 3}'])
def test_record_is_found_again_without_the_file_that_names_it(damage: str, root: Path) -> None:
    config, folder = a_run(root)
    RunMirror(config, folder).close()
    before = only(root).info.run_id
    (folder.path / "mlflow.json").write_text(damage)
    RunMirror(config, folder).close()
    assert only(root).info.run_id == before


def a_sweep(root: Path, axis: str = "seed=1,2") -> Sweep:
    sweep = plan_sweep(adhoc_sweep([axis]), [axis, f"paths.output='{root}'"])
    for run in sweep.runs:
        if run.folder.status is None:
            written_run(run.config)
    return sweep


def test_records_made_twice_under_a_sweep_become_one(root: Path) -> None:
    sweep = a_sweep(root)
    mirror = SweepMirror(sweep, sweep.runs[0].config.tracking)
    mirror.close()
    for run in sweep.runs:
        tags = {"cppo_lab.kind": "run", "cppo_lab.run_id": run.run_id, "mlflow.parentRunId": mirror.run_id}
        mirror.store.client.create_run(mirror.store.experiment_id, tags=tags, run_name="an orphan")
    assert len(active(root, kind="run")) == 4
    for run in sweep.runs:
        mirror.store.runs.update(run.folder, mirror.run_id, run.label, thorough=True)
    found = active(root, kind="run")
    assert len(found) == 2
    assert {run.info.status for run in found} == {"FINISHED"}


def test_other_sweeps_of_a_run_learn_how_it_ended(root: Path) -> None:
    first = a_sweep(root)
    shared = first.runs[1].folder
    shared.update_info(status="INTERRUPTED")
    before = SweepMirror(first, first.runs[0].config.tracking)
    before.close()
    statuses = Counter(run.info.status for run in active(root))
    assert statuses == {"FINISHED": 1, "KILLED": 2}, "a run, and the sweep"
    second = a_sweep(root, "seed=2,3")
    shared.update_info(status="FINISHED")
    SweepMirror(second, second.runs[0].config.tracking).close()
    assert {run.info.status for run in active(root, kind="run")} == {"FINISHED"}
    assert len(active(root, kind="run")) == 4


def test_sweeps_of_two_shells_make_one_record_of_each_run(root: Path) -> None:
    sweep = a_sweep(root)
    for run in sweep.runs:
        run.folder.update_info(status="RUNNING")
    tracking = sweep.runs[0].config.tracking
    mirrors = [SweepMirror(sweep, tracking), SweepMirror(sweep, tracking)]
    assert mirrors[0].run_id == mirrors[1].run_id
    for step in range(3, 9):
        for run in sweep.runs:
            run.folder.append("metrics.jsonl", {"step": step, ACCURACY: 0.25 * step})
        mirrors[step % 2].send()
        if step == 5:
            mirrors[0].send()
    for run in sweep.runs:
        run.folder.update_info(status="FINISHED")
    for mirror in mirrors:
        mirror.close()
    found = active(root, kind="run")
    assert len(found) == 2
    for each in found:
        assert history(root, each.info.run_id) == [(step, 0.25 * step) for step in range(9)]
    assert {run.info.status for run in active(root)} == {"FINISHED"}


class Interrupted(Exception):
    """Stands for a process that dies between two calls of the store."""


def dying_after(calls: int, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client die at a call that writes, before or after the store has done it."""
    left = [calls]

    def wrapped(name: str) -> Callable[..., Any]:
        real = getattr(client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Interrupted
            done = real(*arguments, **options)
            left[0] -= 1
            if left[0] == 0:
                raise Interrupted
            return done

        return call

    for name in (
        "create_run",
        "log_batch",
        "log_artifact",
        "set_terminated",
        "update_run",
        "set_tag",
        "delete_run",
    ):
        monkeypatch.setattr(client, name, wrapped(name))


moves = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.integers(1, 3)),
        st.tuples(st.just("send"), st.integers(0, 12)),
        st.tuples(st.just("rewind"), st.integers(0, 3)),
        st.tuples(st.just("other process"), st.integers(0, 1)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=moves)
def test_whatever_happened_before_the_record_is_exact_after_the_last_comparison(
    moves: list[tuple[str, int]], empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("moves")
    shutil.copy(empty_store, root / "mlflow.db")
    config, folder = a_run(root, status="RUNNING", steps=1)
    mirror = RunMirror(config, folder)
    for move, number in moves:
        last = folder.rows("metrics.jsonl")[-1]["step"]
        if move == "rows":
            for step in range(last + 1, last + 1 + number):
                folder.append("metrics.jsonl", {"step": step, ACCURACY: 0.25 * step, "b": 1.0})
        elif move == "rewind":
            folder.rewind(max(0, last - number))
        elif move == "other process":
            mirror = RunMirror(config, folder)
        else:
            with pytest.MonkeyPatch.context() as patch:
                dying_after(number, mirror.store.client, patch)
                mirror.send()
    folder.update_info(status="FINISHED")
    mirror.close()
    assert mirror.unsent == []
    assert mirror.store.runs.check(folder, None) == []
    last = folder.rows("metrics.jsonl")[-1]["step"]
    assert history(root, only(root).info.run_id) == [(step, 0.25 * step) for step in range(last + 1)]
    shutil.rmtree(root)


def test_passwords_are_neither_written_nor_shown(root: Path) -> None:
    config, folder = a_run(root)
    RunMirror(config, folder).close()
    known = json.loads((folder.path / "mlflow.json").read_text())
    secret = {"http://me:hunter2@tracking.example:5000": {"none": {"run_id": "0" * 32}}}
    (folder.path / "mlflow.json").write_text(json.dumps(known | secret))
    folder.update_info(status="FAILED")
    RunMirror(config, folder).close()
    text = (folder.path / "mlflow.json").read_text()
    assert "hunter2" not in text
    assert json.loads(text)["http://tracking.example:5000"] == {"none": {"run_id": "0" * 32}}
